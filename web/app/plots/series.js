// What is plotted: the numbers at one place in the data of one event name, as lines over
// time, one for each device. Pure.
//
// Law: a point lives as long as its row. So all lines of a series together hold no more
// points than the store holds rows.

import { asNumber, at, json, pathOf, pathText } from "../data/json.js";
import { link } from "../page/address.js";

/** Plots on the page at once. */
export const SOURCES_MAX = 12;
/** Devices of one series that are told apart. Further ones are counted. */
export const DEVICES_MAX = 2_000;
/** Points of one line, for devices whose clocks run backwards: else the rows bound it. */
const POINTS_MAX = 100_000;

/**
 * Where numbers come from.
 * @typedef {object} Source
 * @property {string} name of the event
 * @property {string[]} path in its data; empty for the whole
 * @property {string} device id, or "" for all devices
 */

/**
 * A source as the address holds it: `NAME|PATH|DEVICE`, empty ends left out. A backslash
 * stands before `|` and `\`; half a surrogate pair, which JSON can hold and an address
 * cannot, is `\uXXXX`.
 * @param {Source} source
 */
export function sourceText({ name, path, device }) {
  const parts = [name, pathText(path), device].map((part) =>
    part.replace(/[\\|]|\p{Surrogate}/gu, (sign) =>
      sign === "\\" || sign === "|" ? `\\${sign}` : `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`));
  while (parts.length > 1 && parts[parts.length - 1] === "") parts.pop();
  return parts.join("|");
}

/** @param {string} text @returns {Source} what {@link sourceText} was made of */
export function sourceOf(text) {
  const parts = [""];
  for (let i = 0; i < text.length; i += 1) {
    const half = /^\\u([0-9a-f]{4})/.exec(text.slice(i, i + 6));
    if (half) {
      parts[parts.length - 1] += String.fromCharCode(parseInt(half[1], 16));
      i += 5;
    } else if (text[i] === "\\" && i + 1 < text.length) parts[parts.length - 1] += text[++i];
    else if (text[i] === "|") parts.push("");
    else parts[parts.length - 1] += text[i];
  }
  const [name, path = "", device = ""] = parts;
  return { name, path: pathOf(path), device };
}

/**
 * The link that adds a number to the plots.
 * @param {string} name of the event
 * @param {string[]} path in its data
 * @param {string} [device] that device alone; without it all, a line for each
 */
export const plotLink = (name, path, device = "") => link("plots", { add: sourceText({ name, path, device }) });

/**
 * What people call a source: the name, and where in the data.
 * @param {Source} source
 */
export const title = ({ name, path, device }) =>
  [name, pathText(path), device && `of ${device}`].filter(Boolean).join(" · ");

/**
 * When a row happened: as published, or as received where that is missing.
 * @param {import("../data/store.js").Row} row
 */
export const timeOf = (row) => (Number.isFinite(row.published) ? row.published : row.received);

/** The points of one device, by time. */
export class Line {
  /** @type {number[]} */
  #times = [];
  /** @type {number[]} */
  #values = [];
  /** @type {number[]} */
  #rows = [];
  #start = 0;

  /** @param {string} device */
  constructor(device) {
    this.device = device;
  }

  get size() {
    return this.#times.length - this.#start;
  }

  /** Index of the oldest point; `end` is one after the newest. Indices hold until the next change. */
  get start() {
    return this.#start;
  }

  get end() {
    return this.#times.length;
  }

  /** @param {number} index */
  time(index) {
    return this.#times[index];
  }

  /** @param {number} index */
  value(index) {
    return this.#values[index];
  }

  /**
   * Index of the first point that is not before `time`.
   * @param {number} time
   */
  from(time) {
    let low = this.#start;
    let high = this.#times.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#times[middle] < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /**
   * Index of the point closest to `time`, or -1 if there is none.
   * @param {number} time
   */
  near(time) {
    if (this.size === 0) return -1;
    const after = Math.min(this.from(time), this.end - 1);
    const before = Math.max(after - 1, this.#start);
    return time - this.#times[before] < this.#times[after] - time ? before : after;
  }

  /**
   * @param {number} n of the row
   * @param {number} time
   * @param {number} value
   */
  push(n, time, value) {
    // Nearly always the newest. Events that overtook each other are put in order.
    let index = this.#times.length;
    while (index > this.#start && this.#times[index - 1] > time) index -= 1;
    if (index === this.#times.length) {
      this.#times.push(time);
      this.#values.push(value);
      this.#rows.push(n);
    } else {
      this.#times.splice(index, 0, time);
      this.#values.splice(index, 0, value);
      this.#rows.splice(index, 0, n);
    }
    if (this.size > POINTS_MAX) this.#start += 1;
  }

  /** @param {number} first number of the oldest row that is left */
  forget(first) {
    while (this.#start < this.#rows.length && this.#rows[this.#start] < first) this.#start += 1;
    if (this.#start === this.#rows.length || (this.#start > 1024 && this.#start > this.size)) {
      this.#times = this.#times.slice(this.#start);
      this.#values = this.#values.slice(this.#start);
      this.#rows = this.#rows.slice(this.#start);
      this.#start = 0;
    }
  }
}

/** The lines of one source. Rows go in, in the order of their numbers. */
export class Series {
  /** @type {Map<string, Line>} by device */
  lines = new Map();
  /** Events of the name (and device) that had no number at the path. */
  without = 0;
  /** Numbers that had no time: the page began after they came, and they do not say. */
  untimed = 0;
  /** Numbers of devices beyond {@link DEVICES_MAX}. */
  unnamed = 0;

  /** @param {Source} source */
  constructor(source) {
    this.source = source;
  }

  /** @param {import("../data/store.js").Row} row */
  take(row) {
    const { name, path, device } = this.source;
    if (row.kind !== "event" || row.name !== name || (device && row.device !== device)) return;
    const value = asNumber(at(json(row), path));
    const time = timeOf(row);
    if (value === undefined) this.without += 1;
    else if (!Number.isFinite(time)) this.untimed += 1;
    else {
      let line = this.lines.get(row.device);
      if (!line && this.lines.size >= DEVICES_MAX) {
        this.unnamed += 1;
        return;
      }
      if (!line) this.lines.set(row.device, line = new Line(row.device));
      line.push(row.n, time, value);
    }
  }

  /** @param {number} first number of the oldest row that is left */
  forget(first) {
    for (const [device, line] of this.lines) {
      line.forget(first);
      if (line.size === 0) this.lines.delete(device);
    }
  }

  /** Forgets all. */
  clear() {
    this.lines.clear();
    this.without = this.untimed = this.unnamed = 0;
  }

  /** Times of the oldest and the newest point; Infinity and -Infinity if there is none. */
  span() {
    let from = Infinity;
    let to = -Infinity;
    for (const line of this.lines.values()) {
      if (line.size === 0) continue;
      from = Math.min(from, line.time(line.start));
      to = Math.max(to, line.time(line.end - 1));
    }
    return { from, to };
  }
}

/**
 * Which devices are drawn: those with the most points in the window. One that is drawn
 * keeps its place, and so its colour, until another has twice as many: lines that change
 * places cannot be read.
 * @param {Series} series
 * @param {(string | null)[]} places the devices drawn so far
 * @param {number} from
 * @param {number} to
 * @returns {{places: (string | null)[], left: string[]}} and the devices that are left out, most points first
 */
export function choose(series, places, from, to) {
  /** @type {Map<string, number>} */
  const points = new Map();
  for (const [device, line] of series.lines) {
    const count = line.from(to + 1) - line.from(from);
    if (count > 0) points.set(device, count);
  }
  const of = (/** @type {string | null} */ device) => (device === null ? 0 : points.get(device) ?? 0);
  const next = places.map((device) => (of(device) > 0 ? device : null));
  const order = (/** @type {string} */ a, /** @type {string} */ b) => of(b) - of(a) || (a < b ? -1 : 1);
  const others = [...points.keys()].filter((device) => !next.includes(device)).sort(order);
  for (const [place, device] of next.entries()) {
    if (device === null && others.length > 0) next[place] = others.shift() ?? null;
  }
  for (;;) {
    const least = next.reduce((least, device, place) => (of(device) < of(next[least]) ? place : least), 0);
    if (others.length === 0 || of(others[0]) <= 2 * of(next[least]) + 3) break;
    others.push(/** @type {string} */ (next[least]));
    next[least] = /** @type {string} */ (others.shift());
  }
  return { places: next, left: others.sort(order) };
}
