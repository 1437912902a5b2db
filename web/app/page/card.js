// What the views about the broker are made of: cards, tables and lists of facts.

import { h, setText } from "./dom.js";

/**
 * @param {string} title
 * @param {...HTMLElement} children
 */
export const card = (title, ...children) => h("div", { class: "card" }, h("h2", null, title), ...children);

/**
 * A table. A slim one stays a table on a narrow screen; of others each row becomes a block,
 * with the names of the columns in front of the cells.
 * @param {string} caption
 * @param {string[]} columns
 * @param {{numbers?: number[], isSlim?: boolean, class?: string}} [options] which columns hold numbers
 */
export function table(caption, columns, { numbers = [], isSlim = false, class: more = "" } = {}) {
  const body = h("tbody");
  const ofNumbers = (/** @type {number} */ i) => (numbers.includes(i) ? "number" : null);
  const element = h("table", { class: `broker-table ${isSlim ? "broker-slim" : ""} ${more}` },
    h("caption", { class: "unseen" }, caption),
    h("thead", null, h("tr", null, ...columns.map((text, i) => h("th", { scope: "col", class: ofNumbers(i) }, text)))),
    body);
  /** @param {...import("./dom.js").Child} cells */
  const row = (...cells) => h("tr", null, ...cells.map((cell, i) => (i === 0
    ? h("th", { scope: "row", "data-label": columns[0] }, cell)
    : h("td", { class: ofNumbers(i), "data-label": columns[i] }, cell))));
  return { element, body, row };
}

/**
 * A list of facts whose values are set again and again.
 * @param {Record<string, string>} labels by name
 */
export function facts(labels) {
  /** @type {Record<string, HTMLElement>} */
  const values = {};
  const element = h("dl", { class: "facts" }, ...Object.entries(labels).map(([name, label]) => {
    values[name] = h("dd");
    return h("div", null, h("dt", null, label), values[name]);
  }));
  return {
    element,
    /** @param {Record<string, string>} texts by name */
    set(texts) {
      for (const [name, text] of Object.entries(texts)) setText(values[name], text);
    },
  };
}
