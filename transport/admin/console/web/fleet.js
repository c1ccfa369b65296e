// The hubs that publish markers on the same control channel.

import { $, element, setText } from "./dom.js";
import { count, lasting, plural } from "./format.js";
import { newRow } from "./tables.js";

const LATE = 15; // seconds; a hub publishes a marker every 10 s, ±10 %

/** Shows the hubs of the fleet, or why they are not visible. */
export function showFleet(stats) {
  const { fleet } = stats;
  const body = $("fleet-rows");
  while (body.rows.length > fleet.length) body.rows[body.rows.length - 1].remove();
  for (const [i, hub] of fleet.entries()) {
    const row = body.rows[i] ?? newRow(body, 4);
    showName(row.cells[0], hub.name, tagsOf(hub, stats.version));
    for (const [j, text] of [hub.version, count(hub.streams), count(hub.users), ageOf(hub)].entries()) {
      row.cells[1 + j].dataset.label = $("fleet-head").cells[1 + j].textContent;
      setText(row.cells[1 + j], text);
    }
    row.cells[4].classList.toggle("late", !(hub.age_seconds < LATE));
  }
  $("fleet-table").hidden = fleet.length === 0;
  setText($("fleet-count"), [
    ...(fleet.length ? [plural(fleet.length, "hub")] : []),
    ...(stats.online_users === undefined ? [] : [`${plural(stats.online_users, "user")} online`]),
  ].join(", "));
  showNotes(notesOf(stats));
}

const ageOf = hub => (hub.age_seconds === undefined ? "none received" : `${lasting(hub.age_seconds)} ago`);

// How a hub differs from the one that serves the page.
function tagsOf(hub, version) {
  const tags = [];
  if (hub.self) tags.push(["this hub", "tag"]);
  if (hub.version !== version) tags.push(["other version", "tag differs"]);
  if (hub.other_patterns) tags.push(["other channels", "tag differs"]);
  if (hub.other_server) tags.push(["other Redis server", "tag differs"]);
  return tags;
}

function showName(cell, name, tags) {
  const key = JSON.stringify([name, tags]);
  if (cell.dataset.key === key) return;
  cell.dataset.key = key;
  cell.replaceChildren(name || "(unnamed)", ...tags.map(([text, kind]) => element("span", kind, text)));
}

function notesOf({ fleet, fleet_why: why, marker_mismatches: missed, version }) {
  if (why) return [[`The fleet is not visible: ${why}.`, "dim"]];
  const notes = [];
  if (missed > 0) notes.push([`This hub missed messages ${plural(missed, "time")} although it was connected to Redis. Another hub received them. Pages received the gap missed.`, "bad"]);
  if (fleet.some(hub => hub.other_patterns || hub.other_server)) {
    notes.push(["Hubs with other channels or another Redis server do not know the ids of this hub: a page that moves between them refetches its state.", ""]);
  }
  if (fleet.some(hub => hub.version !== version)) notes.push(["Hubs of different versions work together. After a deploy, all should run the same version.", ""]);
  if (!fleet.some(hub => hub.self && hub.age_seconds !== undefined)) {
    notes.push(["This hub has not received its own marker. If it does not receive markers of other hubs either, its ids are valid on this hub only.", ""]);
  }
  return notes;
}

function showNotes(notes) {
  const list = $("fleet-notes");
  const key = JSON.stringify(notes);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...notes.map(([text, kind]) => element("li", kind, text)));
}
