// A list of rows of which only those on the screen exist as elements.
//
// Law: a row's place on the screen changes only if the reader wants the newest. While they
// point at rows, have scrolled, chosen one or paused, the list stands still and counts.

import { h } from "../page/dom.js";

/** @typedef {import("../data/store.js").Row} Row */
/** @typedef {"paused" | "scrolled" | "chosen" | "pointing"} Hold why the list stands still */

/** Rows made beyond each edge of the screen. */
const BEYOND = 4;
/** Below these widths a row has two lines; fewer columns. */
const NARROW_PX = 560;
const MEDIUM_PX = 900;
/** A pointer that rests for so long holds nothing any more. */
const POINTING_MS = 3_000;

/**
 * What the list shows, by place, newest first.
 * @typedef {object} Source
 * @property {(top: number) => number} count
 * @property {(place: number, top: number) => Row | undefined} row
 * @property {(n: number, top: number) => number} placeOf
 * @property {() => number} newest number of the newest row there is
 */

export class List {
  #source;
  #paint;
  #make;
  #chosenChanged;
  #holdChanged;
  /** Rows on the screen by number. @type {Map<number, HTMLElement>} */
  #shown = new Map();
  /** @type {HTMLElement[]} */
  #spare = [];
  #body = h("div", { class: "list-body", role: "rowgroup" });
  #rowHeight = 34;
  #paused = false;
  #pointingUntil = 0;
  #timer = 0;
  /** Newest number shown while it stands still. */
  #top = Infinity;
  /** @type {Hold | null} */
  hold = null;
  /** Number of the row chosen, or −1. */
  chosen = -1;

  /**
   * @param {object} parts
   * @param {string} parts.label
   * @param {HTMLElement} parts.head row of column headers
   * @param {Source} parts.source
   * @param {() => HTMLElement} parts.make an empty row
   * @param {(element: HTMLElement, row: Row) => void} parts.paint fills it
   * @param {(n: number, opens: boolean) => void} parts.chosen one was chosen, or none (−1)
   * @param {() => void} parts.held it stands still, or moves again
   */
  constructor({ label, head, source, make, paint, chosen, held }) {
    this.#source = source;
    this.#make = make;
    this.#paint = paint;
    this.#chosenChanged = chosen;
    this.#holdChanged = held;
    this.element = h("div", { class: "list", role: "grid", "aria-label": label, tabindex: 0 },
      h("div", { class: "list-head", role: "rowgroup" }, head), this.#body);
    this.element.addEventListener("scroll", () => this.update());
    this.element.addEventListener("click", (event) => this.#clicked(event));
    this.#body.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse") this.#pointing(POINTING_MS);
    });
    this.#body.addEventListener("pointerleave", () => this.#pointing(0));
    new ResizeObserver(() => this.#measure()).observe(this.element);
  }

  /** Newest number that is shown. */
  get top() {
    return this.#top;
  }

  get paused() {
    return this.#paused;
  }

  set paused(paused) {
    this.#paused = paused;
    this.update();
  }

  /** Back to the newest, whatever held it. */
  follow() {
    this.#paused = false;
    this.#pointingUntil = 0;
    this.element.scrollTop = 0;
    this.choose(-1);
  }

  /** Forgets what is on the screen: the rows are others now, up to the same newest one. */
  reset() {
    this.element.scrollTop = 0;
    for (const element of this.#shown.values()) this.#free(element);
    this.#shown.clear();
    this.update();
  }

  /**
   * Chooses a row; −1 for none.
   * @param {number} n
   * @param {boolean} [opens]
   */
  choose(n, opens = false) {
    this.#mark(this.chosen, false);
    this.chosen = n;
    this.#chosenChanged(n, opens);
    this.update();
    this.#mark(n, true);
    const place = n < 0 ? -1 : this.#source.placeOf(n, this.#top);
    if (place >= 0) this.#reveal(place);
  }

  /**
   * Chooses the next (1) or the previous one (−1).
   * @param {number} step
   */
  step(step) {
    const here = this.chosen < 0 ? -1 : this.#source.placeOf(this.chosen, this.#top);
    const first = Math.floor(this.element.scrollTop / this.#rowHeight);
    const place = here < 0 ? first : here + step;
    const row = this.#source.row(Math.max(0, place), this.#top);
    if (row) this.choose(row.n);
  }

  /** Shows what is to be shown now. At most once a frame, please. */
  update() {
    this.#decide();
    const { scrollTop, clientHeight } = this.element;
    const count = this.#source.count(this.#top);
    const first = Math.max(0, Math.floor(scrollTop / this.#rowHeight) - BEYOND);
    const last = Math.min(count, Math.ceil((scrollTop + clientHeight) / this.#rowHeight) + BEYOND);
    /** @type {Map<number, HTMLElement>} */
    const shown = new Map();
    /** @type {[Row, number][]} */
    const absent = [];
    for (let place = first; place < last; place += 1) {
      const row = this.#source.row(place, this.#top);
      if (!row) continue;
      const element = this.#shown.get(row.n);
      if (element) {
        this.#shown.delete(row.n);
        shown.set(row.n, element);
        this.#put(element, place);
      } else absent.push([row, place]);
    }
    for (const element of this.#shown.values()) this.#free(element);
    for (const [row, place] of absent) {
      const element = this.#spare.pop() ?? this.#make();
      this.#paint(element, row);
      element.id = `row-${row.n}`;
      this.#put(element, place);
      if (row.n === this.chosen) element.setAttribute("aria-selected", "true");
      if (!element.isConnected) this.#body.append(element);
      shown.set(row.n, element);
    }
    // Those not taken up again leave the document.
    for (const element of this.#spare) element.remove();
    this.#shown = shown;
    this.#body.style.height = `${count * this.#rowHeight}px`;
    this.element.setAttribute("aria-rowcount", String(count + 1));
    if (shown.has(this.chosen)) this.element.setAttribute("aria-activedescendant", `row-${this.chosen}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  #decide() {
    /** @type {Hold | null} */
    let hold = null;
    if (this.#paused) hold = "paused";
    else if (this.element.scrollTop > 0) hold = "scrolled";
    else if (this.chosen >= 0) hold = "chosen";
    else if (performance.now() < this.#pointingUntil) hold = "pointing";
    if (hold && !this.hold) this.#top = this.#source.newest();
    if (!hold) this.#top = Infinity;
    if (hold !== this.hold) {
      this.hold = hold;
      this.#holdChanged();
    }
  }

  /** @param {number} ms for how long from now */
  #pointing(ms) {
    const now = performance.now();
    const was = this.#pointingUntil > now;
    this.#pointingUntil = now + ms;
    clearTimeout(this.#timer);
    if (ms > 0) this.#timer = setTimeout(() => this.update(), ms + 20);
    if (was !== ms > 0) this.update();
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    const element = /** @type {HTMLElement} */ (event.target).closest(".list-body > [role=row]");
    // Text that was marked with the mouse is not a choice.
    if (!element || !getSelection()?.isCollapsed) return;
    this.choose(Number(element.id.slice("row-".length)), true);
  }

  #measure() {
    const width = this.element.clientWidth;
    this.element.classList.toggle("is-narrow", width < NARROW_PX);
    this.element.classList.toggle("is-medium", width >= NARROW_PX && width < MEDIUM_PX);
    this.#rowHeight = parseFloat(getComputedStyle(this.element).getPropertyValue("--row")) || 34;
    this.update();
  }

  /** @param {number} place */
  #reveal(place) {
    const top = place * this.#rowHeight;
    const { scrollTop, clientHeight } = this.element;
    const room = clientHeight - this.#body.offsetTop - this.#rowHeight;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top > scrollTop + room) this.element.scrollTop = top - room;
  }

  /** @param {HTMLElement} element @param {number} place */
  #put(element, place) {
    element.style.transform = `translateY(${place * this.#rowHeight}px)`;
    // Row 1 is that of the headers.
    element.setAttribute("aria-rowindex", String(place + 2));
  }

  /** @param {HTMLElement} element */
  #free(element) {
    element.removeAttribute("aria-selected");
    this.#spare.push(element);
  }

  /** @param {number} n @param {boolean} is */
  #mark(n, is) {
    const element = this.#shown.get(n);
    if (is) element?.setAttribute("aria-selected", "true");
    else element?.removeAttribute("aria-selected");
  }
}
