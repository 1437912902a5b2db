// The page's own recent past: a bounded ring of rows, numbered from 0 without end.
//
// Law: rows are only appended, and forgotten from the old end. A row's number never
// changes, so whoever shows rows keeps numbers and not rows.

/** Rows kept. */
const ROWS_MAX = 100_000;
/** Characters of all rows together: two bytes each at the worst. */
const CHARS_MAX = 48_000_000;

/**
 * @typedef {object} Row
 * @property {number} n number, counted from the page's start
 * @property {"event" | "gap" | "hole" | "upstream"} kind
 * @property {string} id position, or "" where it has none
 * @property {string} name of the event; of a control row what it is called
 * @property {string} data of the event, as text; of a control row what it says
 * @property {string} device id, or ""
 * @property {number} published Unix milliseconds; NaN where unknown
 * @property {number} received by this page, Unix milliseconds; NaN if it is from the past
 * @property {Record<string, any>} event the whole object as it came
 * @property {unknown} [json] the data parsed, once somebody has asked (see json.js)
 */

/** What a listener is told: rows from `from` up to `next` are new; none before `first` are left. */
/** @typedef {{from: number, next: number, first: number, cleared: boolean}} News */

export class Store {
  /** @type {Row[]} */
  #rows = [];
  /** Where in the array row `first` stands. */
  #start = 0;
  #chars = 0;
  #told = 0;
  #cleared = false;
  #frame = 0;
  /** @type {Set<(news: News) => void>} */
  #listeners = new Set();

  /** Number of the oldest row kept. */
  first = 0;
  /** Number the next row will get. */
  next = 0;
  /** True once an event came: rows of the broker's own alone are no reason to show a list. */
  hasEvents = false;

  /** Rows kept. */
  get size() {
    return this.next - this.first;
  }

  /**
   * A row by its number, or undefined if it is forgotten or not there yet.
   * @param {number} n
   * @returns {Row | undefined}
   */
  at(n) {
    return n >= this.first && n < this.next ? this.#rows[this.#start + n - this.first] : undefined;
  }

  /** @param {Omit<Row, "n">} row */
  push(row) {
    const kept = /** @type {Row} */ (row);
    kept.n = this.next;
    this.hasEvents ||= kept.kind === "event";
    this.#rows.push(kept);
    this.next += 1;
    this.#chars += weight(kept);
    while (this.size > ROWS_MAX || (this.#chars > CHARS_MAX && this.size > 1)) this.#forget();
    if (!this.#frame) this.#frame = requestAnimationFrame(() => this.#tell());
  }

  /** Forgets all. Numbers go on. */
  clear() {
    this.#rows = [];
    this.#start = 0;
    this.#chars = 0;
    this.first = this.next;
    this.#cleared = true;
    if (!this.#frame) this.#frame = requestAnimationFrame(() => this.#tell());
  }

  /**
   * Tells of new rows, at most once a frame, and of none while the page is hidden.
   * @param {(news: News) => void} listener
   * @returns {() => void} ends it
   */
  watch(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #forget() {
    this.#chars -= weight(this.#rows[this.#start]);
    // The place is out of reach, and given up with the array's front.
    /** @type {any[]} */ (this.#rows)[this.#start] = undefined;
    this.#start += 1;
    this.first += 1;
    // Given up in large pieces: moving the rest costs its length.
    if (this.#start > 4096 && this.#start > this.#rows.length / 4) {
      this.#rows = this.#rows.slice(this.#start);
      this.#start = 0;
    }
  }

  #tell() {
    this.#frame = 0;
    const from = Math.max(this.#told, this.first);
    const news = { from, next: this.next, first: this.first, cleared: this.#cleared };
    this.#told = this.next;
    this.#cleared = false;
    for (const listener of this.#listeners) listener(news);
  }
}

/** @param {Row} row */
const weight = (row) => 200 + row.name.length + 2 * row.data.length;
