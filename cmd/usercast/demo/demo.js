// Wires the page: two panels, the form, the line to copy.

import { Ledger } from "./ledger.js";
import { Panel } from "./panel.js";
import { Publisher } from "./publish.js";

const { path, prefix } = document.body.dataset;
const ledger = new Ledger();
const publisher = new Publisher(document.getElementById("publish"), prefix, ledger);

const panels = [...document.querySelectorAll(".panel")].map(section => {
  const panel = new Panel(section, path, ledger);
  section.querySelector("[name=user]").addEventListener("change", () => publisher.offer(section.dataset.panel, panel.user));
  return panel;
});
for (const panel of panels) panel.open();
setInterval(() => panels.forEach(panel => panel.tick()), 1000);

const copy = document.getElementById("copy");
copy.addEventListener("click", async () => {
  const line = document.getElementById("try");
  try {
    await navigator.clipboard.writeText(line.textContent);
    copy.textContent = "Copied";
  } catch {
    // No clipboard without a secure context or the right to it: leave the line
    // marked, so that one key copies it.
    getSelection().selectAllChildren(line);
    copy.textContent = "Marked";
  }
  setTimeout(() => { copy.textContent = "Copy"; }, 1500);
});
