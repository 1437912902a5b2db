// Randomness that can be repeated: the seed is printed, and FANLIGHT_TEST_SEED sets it.

import { randomInt } from "node:crypto";

export class Random {
  #state;

  /** @param {import("node:test").TestContext} context prints the seed */
  constructor(context) {
    const seed = Number(process.env.FANLIGHT_TEST_SEED ?? randomInt(2 ** 32));
    context.diagnostic(`FANLIGHT_TEST_SEED=${seed}`);
    this.#state = seed;
  }

  /** A whole number from 0 to `bound` - 1 (mulberry32). @param {number} bound */
  below(bound) {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound);
  }

  /** One of these. @template T @param {T[]} items */
  pick(items) {
    return items[this.below(items.length)];
  }
}
