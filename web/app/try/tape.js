// Lines of text as they come: the newest, for reading.
//
// Law: the last lines are shown, the number of all is told, and what was cut says so.

import { h, setText } from "../page/dom.js";
import * as format from "../page/format.js";

/** Lines shown. */
const LINES_MAX = 400;
/** Characters of one line shown. */
const LINE_CHARS_MAX = 2_000;
/** Time between two changes of what is shown. */
const INTERVAL_MS = 200;
/** Steps over which the rate is taken: 5 s. */
const RATE_STEPS = 25;

export class Tape {
  #lines = h("div", { class: "tape", role: "region", "aria-label": "What came, newest last", tabindex: "0" });
  #counts = h("p", { class: "muted tape-counts" });
  /** @type {string[]} */
  #waiting = [];
  /** Events at the last steps. @type {{at: number, events: number}[]} */
  #steps = [];
  #all = 0;
  #events = 0;
  #bytes = 0;
  #timer = 0;
  element = h("div", null, this.#counts, this.#lines);

  start() {
    this.#lines.replaceChildren();
    this.#waiting = [];
    this.#steps = [{ at: performance.now(), events: 0 }];
    this.#all = this.#events = this.#bytes = 0;
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#paint(), INTERVAL_MS);
    this.#paint();
  }

  /** Shows the rest, and rests. */
  stop() {
    clearInterval(this.#timer);
    this.#timer = 0;
    this.#paint();
  }

  /** @param {string} text */
  line(text) {
    this.#all += 1;
    this.#waiting.push(text.length > LINE_CHARS_MAX
      ? `${text.slice(0, LINE_CHARS_MAX)}… (${format.count(text.length - LINE_CHARS_MAX)} more characters)` : text);
    // Given up in one go: they would not be seen.
    if (this.#waiting.length > 2 * LINES_MAX) this.#waiting = this.#waiting.slice(-LINES_MAX);
  }

  /** @param {number} events @param {number} bytes */
  came(events, bytes) {
    this.#events += events;
    this.#bytes += bytes;
  }

  #paint() {
    const follows = this.#lines.scrollHeight - this.#lines.scrollTop - this.#lines.clientHeight < 40;
    const lines = this.#waiting.splice(0).slice(-LINES_MAX);
    this.#lines.append(...lines.map((text) => h("div", text === "" ? { class: "blank" } : null, text || "\u00a0")));
    while (this.#lines.childElementCount > LINES_MAX) this.#lines.firstElementChild?.remove();
    if (follows && lines.length) this.#lines.scrollTop = this.#lines.scrollHeight;
    const now = performance.now();
    this.#steps.push({ at: now, events: this.#events });
    if (this.#steps.length > RATE_STEPS) this.#steps.shift();
    const [{ at, events }] = this.#steps;
    const rate = this.#timer && now - at > 900 ? `, ${format.rate(((this.#events - events) * 1000) / (now - at))}` : "";
    const shown = this.#all > LINES_MAX ? `; the newest ${LINES_MAX} of ${format.count(this.#all)} lines` : "";
    setText(this.#counts, `${format.count(this.#events)} event${this.#events === 1 ? "" : "s"}${rate}, ${format.bytes(this.#bytes)}${shown}`);
  }
}
