"use strict";
// What all scripts of a page use. Texts enter as text nodes alone, so that nothing that a run holds becomes markup.
const popcomm = {widgets: {}, choices: {}, data: {}};

popcomm.filled = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
};
popcomm.el = (tag, attributes, ...children) =>
  popcomm.filled(document.createElement(tag), attributes, children);
popcomm.svg = (tag, attributes, ...children) =>
  popcomm.filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// A choice with its name; options: [[value, text]].
popcomm.select = (name, text, options, chosen, changed) => {
  const box = popcomm.el("select", {"data-control": name, onchange: () => changed(box.value)},
    options.map(([value, shown]) => popcomm.el("option", {value}, shown)));
  box.value = String(chosen);
  return popcomm.el("label", {class: "control"}, popcomm.el("span", null, text), box);
};
popcomm.button = (name, text, pressed) =>
  popcomm.el("button", {type: "button", "data-control": name, onclick: pressed}, text);

popcomm.percent = (part, of) => of ? `${(100 * part / of).toFixed(part / of < 0.1 ? 1 : 0)}%` : "-";
popcomm.counted = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
popcomm.short = (value) => value === null || value === undefined || !Number.isFinite(value) ? "-" :
  Math.abs(value) >= 1e5 || Number.isInteger(value) ? value.toLocaleString("en", {maximumFractionDigits: 0}) : String(Number(value.toPrecision(4)));

// A table; cells are texts or elements.
popcomm.table = (caption, columns, rows) => popcomm.el("div", {class: "wide"}, popcomm.el("table", {class: "plain"},
  popcomm.el("caption", null, caption),
  popcomm.el("thead", null, popcomm.el("tr", null, columns.map((name) => popcomm.el("th", {scope: "col"}, name)))),
  popcomm.el("tbody", null, rows.map((row) => popcomm.el("tr", null, row.map((cell) => popcomm.el("td", null, cell)))))));

// A bar of a share, 0 to 1.
popcomm.bar = (share) => popcomm.el("span", {class: "bar"},
  popcomm.el("span", {class: "part", "data-share": share}));
popcomm.stretch = (root) => root.querySelectorAll("[data-share]").forEach((part) => {
  part.style.width = `${100 * Math.min(1, Number(part.dataset.share))}%`;
});

// How often each value of a list occurs, the commonest first: [[value, times]].
popcomm.tally = (values) => {
  const found = new Map();
  for (const value of values) found.set(value, (found.get(value) || 0) + 1);
  return [...found].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
};
