// What an operator must see at once. A banner is told to a screen reader when it comes
// and when the last one goes; its seconds tick in silence.

import { $, announce, element, setText } from "./dom.js";
import { lasting } from "./format.js";

export class Banners {
  #shown = new Map(); // key → { node, time, since }

  /** Shows the banners of a list [{ key, tone, text, since }] and no others. */
  show(list) {
    const box = $("banners");
    const keys = new Set(list.map(b => b.key));
    let changed = false;
    for (const [key, { node }] of this.#shown) {
      if (keys.has(key)) continue;
      node.remove();
      this.#shown.delete(key);
      changed = true;
    }
    for (const { key, tone, text, since } of list) {
      if (this.#shown.has(key)) continue;
      const node = element("p", `banner ${tone}`);
      const time = element("span", "since");
      time.setAttribute("aria-hidden", "true");
      node.append(element("span", "", text), " ", time);
      box.append(node);
      this.#shown.set(key, { node, time, since });
      changed = true;
    }
    if (changed) announce(list.length ? list.map(b => b.text).join(" ") : "All is well again.");
    this.tick();
  }

  /** Lets the times go on. */
  tick() {
    const now = Date.now() / 1000;
    for (const { time, since } of this.#shown.values()) {
      if (since !== undefined) setText(time, `for ${lasting(now - since)}`);
    }
  }
}
