// What the broker says of itself: `/status`, asked again and again.
//
// Law: one question at a time, fewer while nobody looks.

/** Time between questions. */
const INTERVAL_MS = 2_000;
const INTERVAL_HIDDEN_MS = 15_000;
/** An answer that takes longer is none. */
const TIMEOUT_MS = 8_000;

/**
 * @typedef {object} Report
 * @property {any | null} now the newest answer, or null if there is none yet
 * @property {any | null} before the one before it, for rates
 * @property {number} at when the newest came, Unix milliseconds
 * @property {number} seconds between the two
 * @property {string} error why there is no newer one, or ""
 */

export class Status {
  /** @type {Report} */
  report = { now: null, before: null, at: 0, seconds: 0, error: "" };
  /** @type {Set<(report: Report) => void>} */
  #listeners = new Set();
  /** @type {ReturnType<typeof setTimeout> | 0} */
  #timer = 0;
  #asking = false;

  start() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.ask();
    });
    return this.ask();
  }

  /**
   * Tells of every answer and of every failure; the present one at once.
   * @param {(report: Report) => void} listener
   * @returns {() => void} ends it
   */
  watch(listener) {
    this.#listeners.add(listener);
    if (this.report.now || this.report.error) listener(this.report);
    return () => this.#listeners.delete(listener);
  }

  /** Asks now. */
  async ask() {
    if (this.#asking) return;
    this.#asking = true;
    clearTimeout(this.#timer);
    try {
      const answer = await fetch("status", { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" });
      const body = await answer.json();
      if (answer.ok && !body?.upstream) throw new SyntaxError();
      if (!answer.ok) throw new Error(body.error_description ?? `the broker answered ${answer.status}`);
      const at = Date.now();
      const { now: before, at: then } = this.report;
      this.report = { now: body, before, at, seconds: before ? (at - then) / 1000 : 0, error: "" };
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error);
      /** @type {Record<string, string>} */
      const words = { TimeoutError: "no answer in time", TypeError: "no connection to the broker", SyntaxError: "the answer is not the broker's" };
      const reason = words[name] ?? message;
      this.report = { ...this.report, error: reason };
    }
    this.#asking = false;
    this.#timer = setTimeout(() => this.ask(), document.hidden ? INTERVAL_HIDDEN_MS : INTERVAL_MS);
    for (const listener of this.#listeners) listener(this.report);
  }
}

/**
 * How fast a counter grows, per second, between the two newest answers; NaN while there is one.
 * @param {Report} report
 * @param {(status: any) => number} counter
 */
export function rateOf({ now, before, seconds }, counter) {
  if (!now || !before || seconds <= 0) return NaN;
  // Another process counts from zero, and may have done so for longer than the one before.
  if (now.uptime_seconds < before.uptime_seconds || now.ring.epoch !== before.ring.epoch) return NaN;
  return Math.max(0, counter(now) - counter(before)) / seconds;
}
