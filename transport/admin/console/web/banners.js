// Banners show problems that an operator must see immediately. Screen readers announce each new
// banner and the removal of the last one, but not the elapsed time.

import { $, announce, element, setText } from "./dom.js";
import { lasting } from "./format.js";

export class Banners {
  #shown = new Map(); // key → { node, time, timer, since }

  /**
   * Shows exactly the banners of a list [{ key, tone, text, timer, since }]. The timer is the text before
   * the time since since, such as "Retrying for".
   */
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
    for (const { key, tone, text, timer, since } of list) {
      if (this.#shown.has(key)) continue;
      const node = element("p", `banner ${tone}`);
      const time = element("span", "since");
      time.setAttribute("aria-hidden", "true");
      node.append(element("span", "", text), " ", time);
      box.append(node);
      this.#shown.set(key, { node, time, timer, since });
      changed = true;
    }
    if (changed) announce(list.length ? list.map(b => b.text).join(" ") : "All problems are resolved.");
    this.tick();
  }

  /** Updates the elapsed times. */
  tick() {
    const now = Date.now() / 1000;
    for (const { time, timer, since } of this.#shown.values()) {
      if (since !== undefined) setText(time, `${timer} ${lasting(now - since)}`);
    }
  }
}
