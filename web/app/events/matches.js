// Which rows of the store a filter passes, newest first.
//
// Law: a frame's work is bounded. A new filter looks at the past from the newest back, a
// slice a frame, so that the screen fills at once.

/** @typedef {import("../data/store.js").Store} Store */
/** @typedef {import("../data/store.js").Row} Row */
/** @typedef {import("./filter.js").Test} Test */

/** Time for a slice of the past, in one frame. */
const SLICE_MS = 4;
/** Rows looked at between two looks at the clock. */
const ROWS_AT_ONCE = 256;

export class Matches {
  #store;
  /** @type {Test | null} */
  #test = null;
  /** Numbers found looking back: descending. @type {number[]} */
  #older = [];
  /** Numbers since then: ascending, from `#head` on. @type {number[]} */
  #newer = [];
  #head = 0;
  /** Where looking back goes on; below the store's first row when it is done. */
  #back = -1;
  /** First number that was not there when the filter came. */
  #since = 0;
  /** Newest number that was looked at or will be: later ones nobody has told of yet. */
  newest = -1;

  /** @param {Store} store */
  constructor(store) {
    this.#store = store;
    this.filter(null);
  }

  /** True while the past is being looked at. */
  get isLooking() {
    return this.#back >= this.#store.first;
  }

  /** @param {Test | null} test */
  filter(test) {
    this.#test = test;
    this.#older = [];
    this.#newer = [];
    this.#head = 0;
    this.#since = this.#store.next;
    this.newest = this.#since - 1;
    this.#back = this.#since - 1;
    this.look();
  }

  /**
   * Takes what is new in the store, and forgets what it forgot.
   * @param {import("../data/store.js").News} news
   */
  take({ from, next, first, cleared }) {
    if (cleared) this.filter(this.#test);
    for (let n = from; n < next; n += 1) {
      const row = this.#store.at(n);
      // Those that were there when the filter came are found looking back.
      if (row && n >= this.#since && this.#passes(row)) this.#newer.push(n);
    }
    this.newest = next - 1;
    while (this.#older.length > 0 && this.#older[this.#older.length - 1] < first) this.#older.pop();
    if (this.#older.length === 0) {
      while (this.#head < this.#newer.length && this.#newer[this.#head] < first) this.#head += 1;
      if (this.#head > 4096 && this.#head > this.#newer.length / 2) {
        this.#newer = this.#newer.slice(this.#head);
        this.#head = 0;
      }
    }
  }

  /**
   * Looks further back, for a frame's worth.
   * @returns {boolean} whether there is more to look at
   */
  look() {
    const until = performance.now() + SLICE_MS;
    while (this.isLooking) {
      const stop = Math.max(this.#back - ROWS_AT_ONCE, this.#store.first - 1);
      for (; this.#back > stop; this.#back -= 1) {
        const row = this.#store.at(this.#back);
        if (row && this.#passes(row)) this.#older.push(this.#back);
      }
      if (performance.now() > until) return this.isLooking;
    }
    return false;
  }

  /**
   * How many pass, of those up to a number.
   * @param {number} top
   */
  count(top) {
    return this.#older.length - this.#above(top) + this.#upTo(top) - this.#head;
  }

  /**
   * How many pass that are newer than a number.
   * @param {number} top
   */
  newerThan(top) {
    return this.#newer.length - this.#upTo(top) + this.#above(top);
  }

  /**
   * The number of the one that stands at a place, the newest up to `top` at 0.
   * @param {number} place
   * @param {number} top
   * @returns {number} −1 if there is none
   */
  at(place, top) {
    const newest = this.#upTo(top);
    const inNewer = newest - this.#head;
    if (place < 0) return -1;
    return (place < inNewer ? this.#newer[newest - 1 - place] : this.#older[this.#above(top) + place - inNewer]) ?? -1;
  }

  /**
   * The place at which a number stands, or −1.
   * @param {number} n
   * @param {number} top
   */
  placeOf(n, top) {
    const newest = this.#upTo(top);
    const at = this.#upTo(n) - 1;
    if (at >= this.#head && at < newest && this.#newer[at] === n) return newest - 1 - at;
    const old = this.#above(n);
    return n <= top && this.#older[old] === n ? newest - this.#head + old - this.#above(top) : -1;
  }

  /** End of those in `#newer` that are not above `top`. @param {number} top */
  #upTo(top) {
    let [low, high] = [this.#head, this.#newer.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#newer[middle] <= top) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** How many in `#older` are above `top`: a filter can come while the list stands still. @param {number} top */
  #above(top) {
    let [low, high] = [0, this.#older.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#older[middle] > top) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** @param {Row} row */
  #passes(row) {
    return this.#test === null || this.#test(row);
  }
}
