// Randomness that can be repeated: the seed is printed, or stands in the failure, and
// FANLIGHT_TEST_SEED sets it.

import { randomInt } from "node:crypto";

/** Signs that mean something to a shell, a language, a page or a terminal. */
const HOSTILE_SIGNS = [
  ..."ab \"'`\\$!&|;<>(){}[]*?#~%=+,./\n\r\t\0\u0007\u007f\u0085\u2028\u2029\ufeffü温🌡",
  "${x}", "$(id)", "`id`", "'''", '"""', "</script>", "<!--", "\\u0041", "%00", "\\|", "\ud800", "\udc00",
];

export class Random {
  #state;
  /** What set it: to be named where there is no context that prints it. */
  seed = Number(process.env.FANLIGHT_TEST_SEED ?? randomInt(2 ** 32));

  /** @param {import("node:test").TestContext} [context] prints the seed */
  constructor(context) {
    context?.diagnostic(`FANLIGHT_TEST_SEED=${this.seed}`);
    this.#state = this.seed;
  }

  /** A whole number from 0 to `bound` - 1 (mulberry32). @param {number} bound */
  below(bound) {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound);
  }

  /** A text of fewer than `length` hostile signs; half surrogate pairs are among them. */
  text(length = 12) {
    return Array.from({ length: this.below(length) }, () => this.pick(HOSTILE_SIGNS)).join("");
  }

  /** One of these. @template T @param {T[]} items */
  pick(items) {
    return items[this.below(items.length)];
  }
}
