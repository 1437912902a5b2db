// The list of numbers that could be plotted, with their newest values.
//
// Law: a row that is about to be pressed stays where it is.

import { h, setText } from "../page/dom.js";
import * as format from "../page/format.js";
import { pathText } from "../data/json.js";
import { Lately } from "./lately.js";
import { figure } from "./plot.js";

/** Numbers listed. */
const LISTED_MAX = 60;

export class Picker {
  #pick;
  #listed = "";
  #said = "";
  #body = h("tbody");
  #more = h("p", { class: "muted", role: "status" });
  lately = new Lately();
  search = h("input", { type: "search", placeholder: "Name or place", "aria-label": "Find a number by name or place" });
  welcome = h("p", null, "Pick a number and it is plotted, from the past that this page holds on. " +
    "The address keeps the picture: copy it to share it.");
  element;

  /** @param {(source: string) => void} pick told which, as `sourceText` writes it */
  constructor(pick) {
    this.#pick = pick;
    this.search.addEventListener("input", () => {
      this.#said = "";
      this.paint();
    });
    const head = (/** @type {string} */ text) => h("th", { scope: "col" }, text);
    this.element = h("section", { class: "card plots-add", "aria-label": "Numbers seen lately" },
      this.welcome,
      h("div", { class: "split" }, h("h2", null, "Numbers seen lately"), this.search),
      h("table", null,
        h("thead", null, h("tr", null, head("event"), head("in its data"), h("th", { scope: "col", class: "number" }, "newest"),
          h("th", { scope: "col" }, h("span", { class: "unseen" }, "plot it")))),
        this.#body),
      this.#more);
  }

  /**
   * Says something below the list, until it is searched again.
   * @param {string} text
   */
  say(text) {
    this.#said = text;
    setText(this.#more, text);
  }

  paint() {
    if (this.element.hidden) return;
    const body = this.#body;
    const found = this.lately.find(this.search.value);
    const rows = found.slice(0, LISTED_MAX);
    const key = rows.map((seen) => seen.key).join("\n");
    const isUsed = body.matches(":hover") || body.contains(document.activeElement);
    if (key !== this.#listed && (!isUsed || body.rows.length === 0)) {
      this.#listed = key;
      body.replaceChildren(...rows.map((seen) => this.#row(seen)));
    }
    const values = new Map(found.map((seen) => [seen.key, seen.value]));
    for (const row of body.rows) {
      const value = values.get(row.dataset.key ?? "");
      if (value !== undefined) setText(row.cells[2], figure(value));
    }
    setText(this.#more, this.#said
      || (found.length > LISTED_MAX ? `${format.count(found.length - LISTED_MAX)} more: find them by name.`
        : found.length > 0 ? ""
        : this.search.value ? "No number seen lately has this in its name or place."
        : "No number has come yet. Events whose data is a number, or JSON with numbers, appear here."));
  }

  /** @param {import("./lately.js").Seen} seen */
  #row({ key, name, path }) {
    const place = path.length ? pathText(path) : h("span", { class: "muted" }, "the whole");
    return h("tr", { "data-key": key },
      h("td", { class: "mono" }, name), h("td", { class: "mono" }, place), h("td", { class: "number mono" }),
      h("td", { class: "number" }, h("button", {
        type: "button", "aria-label": `Plot ${name} ${pathText(path)}`, onclick: () => this.#pick(key),
      }, "Plot")));
  }
}
