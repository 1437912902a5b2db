// One plot of the page: a chart, and the same as a table.

import { cuts } from "./breaks.js";
import { Chart, DASHES, LINES_MAX } from "./chart.js";
import { bounds, summary, table, thin } from "./curve.js";
import { h, setText, svg } from "../page/dom.js";
import * as format from "../page/format.js";
import { pathText } from "../data/json.js";
import { choose, title } from "./series.js";

/** Devices that are left out and named. */
const LEFT_NAMED_MAX = 24;
const AT_CURSOR = "at cursor";
/** How far from a value the cursor shows it, as a part of the window: beyond its line, it says nothing. */
const NEAR = 0.02;
const HEADS = ["newest", "age", AT_CURSOR, "min", "max", "mean", "points"];

/** @typedef {import("./series.js").Series} Series */
/** @typedef {import("./breaks.js").Breaks} Breaks */

/**
 * @typedef {object} Asked
 * @property {(plot: Plot) => void} remove
 * @property {(plot: Plot, by: number) => void} move
 * @property {(device: string) => void} pin a plot of that device alone
 * @property {(time: number) => void} cursor
 * @property {(from: number, to: number) => void} zoom
 * @property {() => void} reset
 * @property {(event: KeyboardEvent) => void} key pressed on the chart
 */

/** @typedef {{row: HTMLElement, pin: HTMLButtonElement, name: Element, newest: Element, age: Element, cursor: Element, min: Element, max: Element, mean: Element, count: Element}} Cells */

export class Plot {
  #asked;
  /** @type {(string | null)[]} */
  #places;
  /** @type {Cells[]} */
  #cells = [];
  #chart;
  #note = h("p", { class: "muted plot-note" });
  #left = h("div", { class: "wrap" });
  #leftSummary = h("summary");
  #leftOut = h("details", { class: "plot-left" }, this.#leftSummary, this.#left);
  #leftKey = "";
  #near = 0;
  /** @type {Element} */
  #cursorHead = h("th");
  isSeen = true;

  /**
   * @param {Series} series
   * @param {Asked} asked
   */
  constructor(series, asked) {
    this.series = series;
    this.#asked = asked;
    const { source } = series;
    const name = title(source);
    this.#places = Array.from({ length: source.device ? 1 : LINES_MAX }, () => null);
    this.#chart = new Chart({ cursor: asked.cursor, zoom: asked.zoom, reset: asked.reset });
    this.#chart.element.addEventListener("keydown", asked.key);
    const button = (/** @type {string} */ sign, /** @type {string} */ meaning, /** @type {() => void} */ does) =>
      h("button", { type: "button", class: "quiet", "aria-label": `${meaning}: ${name}`, title: meaning, onclick: does }, sign);
    this.up = button("↑", "Move up", () => asked.move(this, -1));
    this.down = button("↓", "Move down", () => asked.move(this, 1));
    this.element = h("section", { class: "card plot", "aria-label": name },
      h("div", { class: "plot-head" },
        h("h2", null, source.name, " ", source.path.length ? h("code", null, pathText(source.path)) : null, " ",
          source.device ? h("small", { class: "muted" }, source.device) : null),
        h("div", { class: "plot-buttons" }, this.up, this.down, button("✕", "Remove", () => asked.remove(this)))),
      this.#chart.element,
      h("div", { class: "plot-table", tabindex: "0", role: "region", "aria-label": `Values of ${name}` }, this.#table(name)),
      this.#note, this.#leftOut);
  }

  /**
   * @param {number} from
   * @param {number} to
   * @param {Breaks} breaks
   * @param {number} now
   */
  draw(from, to, breaks, now) {
    this.#near = (to - from) * NEAR;
    const chosen = choose(this.series, this.#places, from, to);
    this.#places = chosen.places;
    const lines = this.#places.map((device) => (device === null ? undefined : this.series.lines.get(device)));
    const summaries = lines.map((line) => line && summary(line, from, to));
    const shown = breaks.between(from, to);
    const curves = lines.map((line) => (line ? thin(line, from, to, this.#chart.columns) : null));
    const [times, ...columns] = table(curves, cuts(shown));
    while (columns.length < LINES_MAX) columns.push(new Array(times.length));
    this.#chart.draw({ data: [times, ...columns], from, to, bounds: bounds(curves, from, to), breaks: shown });
    for (const [place, cells] of this.#cells.entries()) {
      const device = this.#places[place];
      const numbers = summaries[place];
      cells.row.hidden = !numbers;
      if (!numbers || device === null) continue;
      setText(cells.name, device || "(no device)");
      setText(cells.newest, figure(numbers.newest));
      setText(cells.age, format.ago(now - numbers.time));
      setText(cells.min, figure(numbers.min));
      setText(cells.max, figure(numbers.max));
      setText(cells.mean, figure(numbers.mean, 6));
      setText(cells.count, format.count(numbers.count));
      cells.pin.hidden = this.series.source.device !== "" || device === "";
      cells.pin.setAttribute("aria-label", `Plot ${device} alone`);
    }
    this.#say(chosen.left, summaries.filter((one) => one !== undefined), from, to, shown.length);
    this.cursor(this.#chart.cursor);
  }

  /**
   * Tells the values at a time; NaN for none.
   * @param {number} time
   */
  cursor(time) {
    setText(this.#cursorHead, Number.isFinite(time) ? `at ${format.time(time)}` : AT_CURSOR);
    for (const [place, cells] of this.#cells.entries()) {
      const device = this.#places[place];
      const line = device === null ? undefined : this.series.lines.get(device);
      const index = line && Number.isFinite(time) ? line.near(time) : -1;
      const says = line && index >= 0 &&
        ((time >= line.time(line.start) && time <= line.time(line.end - 1)) || Math.abs(line.time(index) - time) <= this.#near);
      setText(cells.cursor, says ? figure(line.value(index)) : "–");
    }
  }

  /** @param {number} time where the cursor goes */
  point(time) {
    this.#chart.point(time);
    this.cursor(time);
  }

  recolour() {
    this.#chart.recolour();
  }

  close() {
    this.#chart.close();
    this.element.remove();
  }

  /** @param {string} name */
  #table(name) {
    const body = h("tbody", { role: "rowgroup" });
    for (let place = 0; place < this.#places.length; place += 1) {
      const label = h("span", { class: "mono" });
      const [newest, age, cursor, min, max, mean, count] = HEADS.map((head) => h("td", { class: "number", role: "cell", "data-head": head }));
      const pin = h("button", { type: "button", class: "quiet pin", title: "Plot this device alone" }, "alone");
      pin.addEventListener("click", () => this.#asked.pin(this.#places[place] ?? ""));
      const row = h("tr", { hidden: true, role: "row" },
        h("th", { scope: "row", role: "rowheader" }, h("span", { class: "line-name" }, swatch(place), label, pin)),
        newest, age, cursor, min, max, mean, count);
      body.append(row);
      this.#cells.push({ row, pin, name: label, newest, age, cursor, min, max, mean, count });
    }
    const heads = HEADS.map((head) => h("th", { class: "number", scope: "col", role: "columnheader" }, head));
    this.#cursorHead = heads[HEADS.indexOf(AT_CURSOR)];
    this.#cursorHead.classList.add("at-cursor");
    // Roles are said, since narrow screens lay the table out as something else.
    return h("table", { role: "table" },
      h("caption", { class: "unseen" }, `${name}: newest value, and lowest, highest and mean in the window, for each line`),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, h("th", { scope: "col", role: "columnheader" }, "device"), ...heads)),
      body);
  }

  /**
   * @param {string[]} left
   * @param {import("./curve.js").Summary[]} summaries
   * @param {number} from
   * @param {number} to
   * @param {number} breaks
   */
  #say(left, summaries, from, to, breaks) {
    const { without, untimed, unnamed, lines } = this.series;
    /** @type {string[]} */
    const notes = [];
    const many = (/** @type {number} */ n, /** @type {string} */ what) => `${format.count(n)} ${what}${n === 1 ? "" : "s"}`;
    if (summaries.length === 0) {
      if (lines.size > 0) notes.push("No value in this window.");
      else if (without > 0) notes.push(`No number yet: ${many(without, "event")} of this name had none at this place.`);
      else notes.push("No event of this name has come yet. What comes is drawn.");
    } else if (without > 0) notes.push(`${many(without, "event")} of this name had no number here.`);
    if (untimed > 0) notes.push(`${many(untimed, "value")} without a time ${untimed === 1 ? "is" : "are"} not drawn.`);
    if (unnamed > 0) notes.push(`${many(unnamed, "value")} of further devices ${unnamed === 1 ? "is" : "are"} not kept.`);
    this.#leftOut.hidden = left.length === 0;
    setText(this.#leftSummary, `The ${this.#places.length} devices with the most values are drawn; ` +
      `${many(left.length, "device")} with values ${left.length === 1 ? "is" : "are"} left out`);
    setText(this.#note, notes.join(" "));
    this.#note.hidden = notes.length === 0;
    this.#nameLeft(left);
    const count = summaries.reduce((sum, one) => sum + one.count, 0);
    const label = `${title(this.series.source)}: ${many(count, "value")} in ${many(summaries.length, "line")}, ` +
      `${format.dateTime(from)} to ${format.second(to)}` +
      `${breaks ? `, ${many(breaks, "break")}` : ""}. The table has the figures. Arrow keys move the cursor, plus and minus zoom.`;
    if (this.#chart.element.getAttribute("aria-label") !== label) this.#chart.element.setAttribute("aria-label", label);
  }

  /** @param {string[]} left */
  #nameLeft(left) {
    if (!this.#leftOut.open) return;
    const devices = left.slice(0, LEFT_NAMED_MAX).sort();
    const key = `${left.length > devices.length} ${devices.join(" ")}`;
    // Made anew only when they change: a button that is about to be pressed stays.
    if (key === this.#leftKey || this.#left.contains(document.activeElement) || this.#left.matches(":hover")) return;
    this.#leftKey = key;
    this.#left.replaceChildren(...devices.map((device) =>
      h("button", { type: "button", class: "mono small", title: "Plot this device alone", onclick: () => this.#asked.pin(device) }, device || "(no device)")),
    left.length > devices.length ? "and others" : "");
  }
}

/** @param {number} place */
function swatch(place) {
  const stroke = svg("line", { x1: 0, y1: 5, x2: 30, y2: 5, "stroke-width": 2.5, "stroke-dasharray": DASHES[place].join(" ") || null });
  return svg("svg", { class: `swatch plot-${place + 1}`, width: 30, height: 10, "aria-hidden": "true" }, stroke);
}

/**
 * A number as people read it: as exact as devices are, short enough for a cell.
 * @param {number} value
 * @param {number} [digits] that count
 */
export function figure(value, digits = 12) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e12 || size < 1e-6)) return String(Number(value.toPrecision(Math.min(digits, 6))));
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}
