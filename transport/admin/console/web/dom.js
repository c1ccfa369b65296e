// The page's nodes. What came over the wire goes into it as text, never as markup.

/** The node of an id. */
export const $ = id => document.getElementById(id);

export function element(name, className = "", text = "") {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== "") node.textContent = text;
  return node;
}

/** Writing the same text again would still cost a layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Says something to a screen reader, once. */
export function announce(text) {
  setText($("announce"), text);
}
