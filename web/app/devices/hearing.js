// What feeds the fleet: the rows of the store as they come, and once the newest values the
// broker knows. And how far all that can be relied upon.
//
// Law: so many a frame, whatever came meanwhile; nothing is taken in twice.

import { rowOf } from "../data/event.js";
import { Fleet } from "./fleet.js";

/** Rows taken in at one step. */
const ROWS_PER_STEP = 5_000;
/** The page's clock counts as right if it is off the broker's by less. */
const SKEW_MIN_MS = 2_000;
/** An outage that is shorter is not worth a word. */
const DEAF_MIN_MS = 2_000;

/** @typedef {import("./fleet.js").Heard} Heard */

export class Hearing {
  #context;
  #changed;
  /** Newest values not yet taken in, the newest first. @type {Heard[]} */
  #seeds = [];
  /** The next row of the store to take in. */
  #next;
  /** Since when the page hears nothing of the broker; Infinity while it does. */
  #cutSince = Infinity;
  /** Until when the broker heard the cloud; Infinity while it does. */
  #cloudUntil = Infinity;

  fleet = new Fleet();
  /** Why the newest values are not known, or "". */
  seedError = "";

  /**
   * @param {import("../main.js").Context} context
   * @param {(isNew: boolean) => void} changed there is something to take in; true if all before is forgotten
   */
  constructor(context, changed) {
    this.#context = context;
    this.#changed = changed;
    this.#next = context.store.first;
    context.store.watch(({ cleared }) => {
      if (cleared) {
        this.fleet = new Fleet();
        this.#next = context.store.first;
        void this.seed();
      }
      changed(cleared);
    });
    context.status.watch(() => this.#listen());
    context.feed.watch(() => this.#listen());
    void this.seed();
  }

  /** Asks for the newest values: of devices that said nothing since the page came, too. */
  async seed() {
    this.seedError = "";
    try {
      const answer = await fetch("last", { cache: "no-store" });
      if (!answer.ok) throw new Error(`the broker answered ${answer.status}`);
      /** @type {Record<string, any>[]} */
      const events = await answer.json();
      // Taken from the end, a few at a time.
      this.#seeds = events.reverse().map((event) => {
        const { device, name, data, published } = rowOf(event, NaN);
        return { device, name, data, at: this.#pastTime(published) };
      });
    } catch (error) {
      this.seedError = error instanceof Error ? error.message : String(error);
    }
    this.#changed(false);
  }

  /** Takes in what came, as far as it goes at once. @returns {boolean} whether there is more */
  step() {
    const { store } = this.#context;
    if (this.#next < store.first) {
      // Rows went by while nobody looked.
      this.#next = store.first;
      this.fleet.interrupt();
    }
    const end = Math.min(store.next, this.#next + ROWS_PER_STEP);
    for (; this.#next < end; this.#next += 1) {
      const row = store.at(this.#next);
      if (row?.kind === "gap" || row?.kind === "hole") this.fleet.interrupt();
      if (row?.kind !== "event") continue;
      const at = Number.isFinite(row.received) ? row.received : this.#pastTime(row.published);
      this.fleet.hear({ device: row.device, name: row.name, data: row.data, at });
    }
    for (const heard of this.#seeds.splice(-ROWS_PER_STEP).reverse()) this.fleet.seed(heard);
    return this.#next < store.next || this.#seeds.length > 0;
  }

  /** What silence is measured against. @returns {import("./fleet.js").Clock} */
  clock() {
    const now = Date.now();
    const live = this.#context.status.report.now?.upstream;
    const from = live?.state === "live" ? Date.parse(live.since) + this.#skew() : -Infinity;
    // Nobody is silent while the past is still being told.
    const told = this.#context.feed.isCaughtUp ? now : -Infinity;
    return { now, from, to: Math.min(told, this.#cutSince, this.#cloudUntil) };
  }

  /** True while nothing can be heard. */
  get isDeaf() {
    return Date.now() - Math.min(this.#cutSince, this.#cloudUntil) >= DEAF_MIN_MS;
  }

  #listen() {
    const { status, feed } = this.#context;
    const { now, error, at } = status.report;
    const isCut = error !== "" || (feed.state !== null && feed.state.state !== "open");
    if (isCut !== (this.#cutSince !== Infinity)) this.#cutSince = isCut ? Date.now() : Infinity;
    this.#cloudUntil = now && now.upstream.state !== "live"
      ? at - 1000 * (now.upstream.last_byte_age_seconds ?? 0) : Infinity;
  }

  /**
   * What lies in the past has the cloud's time. Nothing comes from the future.
   * @param {number} published Unix milliseconds
   */
  #pastTime(published) {
    return Math.min(published + this.#skew(), Date.now());
  }

  /** How far this page's clock is ahead of the broker's, in milliseconds. */
  #skew() {
    const { now, at } = this.#context.status.report;
    const off = now ? at - Date.parse(now.now) : 0;
    return Math.abs(off) >= SKEW_MIN_MS ? off : 0;
  }
}
