// The connection's past as a picture: its states on one lane, what was lost on another.
//
// Law: a state is told by its pattern and its word, never by colour alone; whatever the
// picture shows stands in the tables below it too.

import { h, setText, svg } from "../page/dom.js";
import { dateTime, duration } from "../page/format.js";
import { holeWord, stateMeaning } from "../page/words.js";

const HEIGHT = 92;
const LANE_TOP = 8;
const LANE_HEIGHT = 34;
const HOLES_TOP = 48;
const HOLES_HEIGHT = 14;
const AXIS_Y = 84;
/** A short state is drawn this wide: it must be seen, and hit with a finger. */
const MARK_WIDTH_MIN = 4;
/** Width of a letter, about, to see whether a word fits. */
const LETTER_WIDTH = 8.6;
const TICK_WIDTH_MIN = 110;
const TICKS_MAX = 60;
/** Round steps of time between ticks, in seconds: 1 s to 30 days. */
const STEPS_S = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000,
];
const DAY_MS = 86_400_000;

/** @typedef {{state: string, since: number, until: number, detail: string}} Span one state, in Unix milliseconds */
/** @typedef {{reason: string, since: number, until: number}} Hole */
/** @typedef {{element: SVGElement, label: string, at: number}} Mark */

const SVG_ID = "timeline-";
/** Each state's pattern, as the path of one tile of 8 by 8. */
/** @type {Record<string, string>} */
const PATTERNS = {
  connecting: "M0 8L8 0",
  "backing-off": "M0 2H8M0 6H8",
  stalled: "M2 0V8M6 0V8",
  "rate-limited": "M0 4H8M4 0V8",
  unauthorized: "M0 0L8 8M0 8L8 0",
  misconfigured: "M0 0L8 8",
};

/** Reason of the hole that is not over yet, and so has none. */
export const OPEN_HOLE = "open";

/** How much of the past can be chosen: `all`, or milliseconds. */
export const RANGES = { all: Infinity, "24h": 86_400_000, "1h": 3_600_000, "15m": 900_000 };

export class Timeline {
  #svg = svg("svg", {
    class: "timeline", role: "group", "aria-label": "States and holes by time. Arrow keys go from one to the next",
  });
  #told = h("p", { class: "timeline-told muted" });
  #legend = h("ul", { class: "timeline-legend", "aria-label": "Legend" });
  /** @type {Mark[]} */
  #marks = [];
  #focus = -1;
  #key = "";

  constructor() {
    this.element = h("div", null, this.#svg, this.#told, this.#legend);
    this.#svg.addEventListener("keydown", (event) => this.#step(/** @type {KeyboardEvent} */ (event)));
    this.#svg.addEventListener("pointerleave", () => this.#tell(this.#focus));
    this.#tell(-1);
  }

  /**
   * @param {Span[]} spans oldest first; the last one reaches to `now`
   * @param {Hole[]} holes oldest first
   * @param {number} now
   * @param {number} range milliseconds, or Infinity for all
   */
  draw(spans, holes, now, range) {
    const width = Math.max(240, Math.floor(this.#svg.clientWidth || this.#svg.getBoundingClientRect().width));
    const first = Math.min(spans[0]?.since ?? now, holes[0]?.since ?? now);
    const from = Math.max(first, now - range);
    const length = Math.max(1_000, now - from);
    const x = (/** @type {number} */ at) => Math.max(0, Math.min(width, ((at - from) / length) * width));
    // Drawn again only if something moved by a pixel.
    const key = [width, range, spans.length, holes.length, spans[0]?.since, spans.at(-1)?.since, holes.at(-1)?.until,
      Math.round(length / Math.max(500, length / width))].join();
    if (key === this.#key) return;
    this.#key = key;
    const hadFocus = this.#svg.contains(document.activeElement);
    this.#marks = [];
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.#svg.setAttribute("height", String(HEIGHT));
    this.#svg.replaceChildren(patterns(), ...ticks(from, length, width));
    const seen = spans.filter(({ until }) => until >= from);
    // Short ones last: they lie on top of those that are wide enough to miss a bit.
    const drawn = [...seen].sort((a, b) => Number(a.state !== "live") - Number(b.state !== "live"));
    for (const span of drawn) this.#svg.append(this.#span(span, x, width));
    for (const hole of holes.filter(({ until }) => until >= from)) this.#svg.append(this.#hole(hole, x, width));
    this.#marks.sort((a, b) => a.at - b.at);
    this.#marks.forEach(({ element }, i) => {
      element.addEventListener("pointerenter", () => this.#tell(i));
      element.addEventListener("focus", () => {
        this.#focus = i;
        this.#tell(i);
      });
    });
    this.#focus = Math.min(this.#focus, this.#marks.length - 1);
    const stop = this.#focus < 0 ? this.#marks.length - 1 : this.#focus;
    this.#marks[stop]?.element.setAttribute("tabindex", "0");
    if (hadFocus) this.#marks[stop]?.element.focus();
    this.#drawLegend(new Set(seen.map(({ state }) => state)), holes.length > 0);
  }

  /**
   * @param {Span} span
   * @param {(at: number) => number} x
   * @param {number} width
   */
  #span({ state, since, until, detail }, x, width) {
    const [left, wide] = extent(x(since), x(until), width);
    const { tone } = stateMeaning(state);
    const label = `${state}, ${dateTime(since)}, for ${duration(until - since)}${detail ? `: ${detail}` : ""}`;
    const word = wide > state.length * LETTER_WIDTH + 12
      ? svg("text", { x: left + 8, y: LANE_TOP + LANE_HEIGHT / 2 + 4.5 }, state) : null;
    const box = { x: left, y: LANE_TOP, width: wide, height: LANE_HEIGHT };
    const hasPattern = Object.hasOwn(PATTERNS, state);
    const behindWord = { x: left + 4, y: LANE_TOP + 8, width: state.length * LETTER_WIDTH + 4, height: LANE_HEIGHT - 16 };
    return this.#mark(label, since, tone,
      svg("rect", { ...box, class: "mark-ground" }),
      hasPattern ? svg("rect", { ...box, fill: `url(#${SVG_ID}${state})` }) : null,
      word && hasPattern ? svg("rect", { ...behindWord, class: "mark-ground bare" }) : null,
      word);
  }

  /**
   * @param {Hole} hole
   * @param {(at: number) => number} x
   * @param {number} width
   */
  #hole({ reason, since, until }, x, width) {
    const [left, wide] = extent(x(since), x(until), width);
    const label = reason === OPEN_HOLE
      ? `hole, open since ${dateTime(since)}: what devices publish now is lost`
      : `hole, ${dateTime(since)}, for ${duration(until - since)}: ${holeWord(reason)}; what devices published then is lost`;
    const middle = left + wide / 2;
    return this.#mark(label, since, "bad",
      svg("rect", { x: left, y: HOLES_TOP, width: wide, height: HOLES_HEIGHT, class: "mark-ground mark-hole" }),
      // A sign as well as a colour: an open triangle that points at what is missing.
      svg("path", { d: `M${middle - 5} ${HOLES_TOP + HOLES_HEIGHT + 9}l5 -8l5 8z`, class: "mark-sign" }));
  }

  /**
   * @param {string} label
   * @param {number} at
   * @param {string} tone
   * @param {...(SVGElement | null)} parts
   */
  #mark(label, at, tone, ...parts) {
    const element = svg("g", { class: "mark", "data-mark": tone, role: "img", "aria-label": label, tabindex: -1 }, ...parts);
    this.#marks.push({ element, label, at });
    return element;
  }

  /** @param {KeyboardEvent} event */
  #step(event) {
    /** @type {Record<string, number>} */
    const to = { ArrowRight: this.#focus + 1, ArrowLeft: this.#focus - 1, Home: 0, End: this.#marks.length - 1 };
    const next = this.#marks[to[event.key]];
    if (!next) return;
    event.preventDefault();
    this.#marks[this.#focus]?.element.setAttribute("tabindex", "-1");
    next.element.setAttribute("tabindex", "0");
    next.element.focus();
  }

  /** @param {number} index */
  #tell(index) {
    setText(this.#told, this.#marks[index]?.label ??
      "Point at a part of the picture, or go through it with the arrow keys, for details.");
  }

  /**
   * @param {Set<string>} states
   * @param {boolean} hasHoles
   */
  #drawLegend(states, hasHoles) {
    const swatch = (/** @type {string} */ tone, /** @type {string} */ fill) =>
      svg("svg", { width: 22, height: 14, class: "mark", "data-mark": tone, "aria-hidden": "true" },
        svg("rect", { x: 1, y: 1, width: 20, height: 12, class: "mark-ground" }),
        fill ? svg("rect", { x: 1, y: 1, width: 20, height: 12, fill }) : null);
    const lines = [...states].map((state) => h("li", null,
      swatch(stateMeaning(state).tone, Object.hasOwn(PATTERNS, state) ? `url(#${SVG_ID}${state})` : ""), state));
    if (hasHoles) {
      lines.push(h("li", null, svg("svg", { width: 14, height: 12, class: "mark", "data-mark": "bad", "aria-hidden": "true" },
        svg("path", { d: "M2 10l5 -8l5 8z", class: "mark-sign" })), "hole: what devices published then is lost"));
    }
    this.#legend.replaceChildren(...lines);
  }
}

/**
 * Where a mark stands: wide enough to be seen, and within the picture.
 * @param {number} left
 * @param {number} right
 * @param {number} width
 * @returns {[number, number]}
 */
function extent(left, right, width) {
  const wide = Math.max(MARK_WIDTH_MIN, right - left);
  return [Math.min(left, width - wide), wide];
}

function patterns() {
  return svg("defs", null, ...Object.entries(PATTERNS).map(([state, d]) =>
    svg("pattern", { id: SVG_ID + state, width: 8, height: 8, patternUnits: "userSpaceOnUse" },
      svg("path", { d, class: `pattern pattern-${stateMeaning(state).tone}` }))));
}

/**
 * Times along the lower edge: as few as fit, at round times.
 * @param {number} from
 * @param {number} length
 * @param {number} width
 */
function ticks(from, length, width) {
  const fits = STEPS_S.find((seconds) => (seconds * 1_000 / length) * width >= TICK_WIDTH_MIN);
  const step = 1_000 * (fits ?? STEPS_S[STEPS_S.length - 1]);
  const day = /** @type {const} */ ({ month: "short", day: "numeric" });
  const minute = /** @type {const} */ ({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const clock = new Intl.DateTimeFormat(undefined, step < 60_000 ? { ...minute, second: "2-digit" }
    : step >= DAY_MS ? day : length > DAY_MS ? { ...day, ...minute } : minute);
  // Round by the reader's clock, not by Greenwich's.
  const offset = new Date(from).getTimezoneOffset() * 60_000;
  const made = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= from + length; at += step) {
    if (made.length >= TICKS_MAX) break;
    const x = ((at - from) / length) * width;
    made.push(svg("path", { d: `M${x} ${LANE_TOP}V${HEIGHT - 14}`, class: "timeline-tick" }));
    if (x < width - 40) made.push(svg("text", { x: x + 3, y: AXIS_Y + 4, class: "timeline-time" }, clock.format(at)));
  }
  return made;
}
