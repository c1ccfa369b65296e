// Connects the parts of the page: two panels, the form, and the command to copy.

import { Ledger } from "./ledger.js";
import { Panel } from "./panel.js";
import { Publisher } from "./publish.js";

const { path, prefix, separator } = document.body.dataset;
const ledger = new Ledger();
const publisher = new Publisher(document.getElementById("publish"), prefix, separator, ledger);

const panels = [...document.querySelectorAll(".panel")].map(section => {
  const panel = new Panel(section, path, separator, ledger);
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
    // The clipboard requires a secure context and permission. Otherwise, select the
    // command, so that the user can copy it with the keyboard.
    getSelection().selectAllChildren(line);
    copy.textContent = "Selected";
  }
  setTimeout(() => { copy.textContent = "Copy"; }, 1500);
});
