// The numbers seen lately: what could be plotted. Pure.

import { json, numbers } from "../data/json.js";
import { sourceText } from "./series.js";

/** Kept; the one not seen for longest goes first. */
const KEPT_MAX = 400;

/** @typedef {{key: string, name: string, path: string[], value: number}} Seen a source without device, and its newest value */

export class Lately {
  /** @type {Map<string, Seen>} the one seen last at the end */
  #seen = new Map();

  /** @param {import("../data/store.js").Row} row */
  take(row) {
    if (row.kind !== "event") return;
    for (const { path, value } of numbers(json(row))) {
      const key = sourceText({ name: row.name, path, device: "" });
      this.#seen.delete(key);
      this.#seen.set(key, { key, name: row.name, path, value });
    }
    for (const key of this.#seen.keys()) {
      if (this.#seen.size <= KEPT_MAX) break;
      this.#seen.delete(key);
    }
  }

  /**
   * Those with all words of the text in name or path, in alphabetical order.
   * @param {string} text
   */
  find(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return [...this.#seen.values()]
      .filter(({ key }) => words.every((word) => key.toLowerCase().includes(word)))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  clear() {
    this.#seen.clear();
  }
}
