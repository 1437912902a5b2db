// Where something is missing, on the axis of time. Pure.
//
// Law: a hole has the times that the broker gives. A gap has none: it lies between the
// event before it and the event after it.

import { timeOf } from "./series.js";

/** Breaks kept; the oldest go first. */
const BREAKS_MAX = 500;

/**
 * @typedef {object} Break
 * @property {number} n of the row
 * @property {"hole" | "gap"} kind
 * @property {number} from Unix milliseconds; -Infinity if nothing came before
 * @property {number} to Infinity if nothing has come since
 * @property {string} text what the row says
 */

export class Breaks {
  /** @type {Break[]} */
  #breaks = [];
  /** Gaps that no event has come after. @type {Break[]} */
  #open = [];
  #last = -Infinity;

  /** @param {import("../data/store.js").Row} row */
  take(row) {
    if (row.kind === "event") {
      const time = timeOf(row);
      if (!Number.isFinite(time)) return;
      for (const gap of this.#open) {
        gap.to = Math.max(time, gap.from);
        gap.from = Math.min(time, gap.from);
      }
      this.#open = [];
      this.#last = time;
    } else if (row.kind === "hole") {
      const from = Date.parse(row.event.since);
      const to = Date.parse(row.event.until);
      if (Number.isFinite(from) && Number.isFinite(to)) this.#add({ n: row.n, kind: "hole", from, to, text: row.data });
    } else if (row.kind === "gap") {
      const gap = this.#add({ n: row.n, kind: "gap", from: this.#last, to: Infinity, text: row.data });
      this.#open.push(gap);
      if (this.#open.length > BREAKS_MAX) this.#open.shift();
    }
  }

  /** @param {number} first number of the oldest row that is left */
  forget(first) {
    while (this.#breaks.length > 0 && this.#breaks[0].n < first) this.#breaks.shift();
  }

  /**
   * Those that touch the time between.
   * @param {number} from
   * @param {number} to
   */
  between(from, to) {
    return this.#breaks.filter((one) => one.from <= to && one.to >= from);
  }

  /** @param {Break} one */
  #add(one) {
    this.#breaks.push(one);
    if (this.#breaks.length > BREAKS_MAX) this.#breaks.shift();
    return one;
  }
}

/**
 * Where lines stop: the middle of each break that has two sides.
 * @param {Break[]} breaks
 */
export const cuts = (breaks) =>
  breaks.filter(({ from, to }) => Number.isFinite(from) && Number.isFinite(to)).map(({ from, to }) => from + (to - from) / 2);
