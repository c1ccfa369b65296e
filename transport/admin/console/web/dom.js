// DOM helpers. Data from the network is inserted as text, never as markup.

/** Returns the element with an id. */
export const $ = id => document.getElementById(id);

export function element(name, className = "", text = "") {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== "") node.textContent = text;
  return node;
}

/** Sets the text of a node if it differs: setting equal text would still cause a layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Makes screen readers announce a text once. */
export function announce(text) {
  setText($("announce"), text);
}
