// From the broker's stream to the store: the one connection of the page.
//
// Law: every event, gap, hole and change upstream becomes a row in its place.

import { connect } from "../../fanlight.js";
import { holeWord } from "../page/words.js";
import { duration } from "../page/format.js";
import { rowOf } from "./event.js";

/** Events of the past that a page begins with, if the broker holds that many. */
const PAST_EVENTS = 20_000;

/** @typedef {import("./store.js").Store} Store */
/** @typedef {import("../../fanlight.js").State} State */

export class Feed {
  #store;
  /** @type {ReturnType<typeof connect> | null} */
  #connection = null;
  /** First seq that was not there when the page came: from here on events are live. */
  #liveFrom = Infinity;
  #epoch = "";
  /** @type {Set<(state: State) => void>} */
  #listeners = new Set();
  /** @type {State | null} */
  state = null;
  /** True if the broker held more than the page began with. */
  hasOlder = false;
  /** False while the past that the page began with is still coming. */
  isCaughtUp = true;

  /** @param {Store} store */
  constructor(store) {
    this.#store = store;
  }

  /**
   * Begins with the newest of what the broker holds, or with all of it.
   * @param {any} status the broker's status, for where its ring begins and ends; null if unknown
   * @param {boolean} [all]
   */
  start(status, all = false) {
    this.#connection?.close();
    const ring = status?.ring;
    /** @type {{lastEventId?: string, since?: string}} */
    let from = { since: "15m" };
    if (ring) {
      // A full ring forgets its oldest before they are asked for: begin where they last a while.
      const lasting = ring.evicted > 0 ? ring.oldest + Math.ceil((ring.tail - ring.oldest) / 50) : ring.oldest;
      const first = all ? lasting : Math.max(lasting, ring.tail - PAST_EVENTS);
      from = { lastEventId: `${ring.epoch}-${first - 1}` };
      this.hasOlder = first > lasting;
      this.#epoch = ring.epoch;
      this.#liveFrom = ring.tail;
      this.isCaughtUp = first >= ring.tail;
    }
    this.#connection = connect("./", {
      ...from,
      onEvent: (event) => this.#event(event),
      onGap: (gap) => this.#control("gap", gap, gapText(gap)),
      onHole: (hole) => this.#control("hole", hole, holeText(hole)),
      onUpstream: (upstream) => this.#control("upstream", upstream, upstream.detail || ""),
      onState: (state) => {
        this.state = state;
        for (const listener of this.#listeners) listener(state);
      },
    });
  }

  /**
   * Forgets what is shown and begins with all that the broker holds.
   * @param {any} status
   */
  restart(status) {
    this.#store.clear();
    this.start(status, true);
  }

  /** @param {(state: State) => void} listener */
  watch(listener) {
    this.#listeners.add(listener);
    if (this.state) listener(this.state);
    return () => this.#listeners.delete(listener);
  }

  /** @param {Record<string, any>} event */
  #event(event) {
    this.#store.push(rowOf(event, this.#isLive(event.id) ? Date.now() : NaN));
  }

  /**
   * @param {"gap" | "hole" | "upstream"} kind
   * @param {Record<string, any>} control
   * @param {string} data
   */
  #control(kind, control, data) {
    const received = Date.now();
    this.#store.push({
      kind,
      id: control.id ?? "",
      name: kind === "upstream" ? `upstream ${control.state}` : `${kind}: ${control.reason}`,
      data,
      device: "",
      published: Date.parse(control.since ?? "") || (this.#isLive(control.id ?? "") ? received : NaN),
      received,
      event: control,
    });
  }

  /** @param {string} id */
  #isLive(id) {
    // The state that comes with a hello has no place: it says nothing of how far the past is.
    if (id === "") return false;
    const at = id.lastIndexOf("-");
    const seq = Number(id.slice(at + 1));
    if (id.slice(0, at) !== this.#epoch) {
      // A broker that started since: all it has is new.
      this.isCaughtUp = true;
      return this.#epoch !== "";
    }
    if (seq >= this.#liveFrom - 1) this.isCaughtUp = true;
    return seq >= this.#liveFrom;
  }
}

/** @param {Record<string, any>} gap */
function gapText(gap) {
  const many = gap.count === null ? "an unknown number of records" : `${gap.count} record${gap.count === 1 ? "" : "s"}`;
  /** @type {Record<string, string>} */
  const why = {
    evicted: `${many} had left the broker's memory before this page could get them`,
    overtaken: `${many} left the broker's memory while this page was too slow`,
    restart: "the broker started anew and forgot what was before",
    future: "the broker does not know the place this page came from",
    malformed: "the place this page came from cannot be read",
    oversize: "an event was too large to keep",
    refused: "an event had a name that cannot be passed on",
  };
  return why[gap.reason] ?? `${many} are missing`;
}

/** @param {Record<string, any>} hole */
function holeText(hole) {
  const lasted = Math.max(0, Date.parse(hole.until) - Date.parse(hole.since));
  return `no connection to the cloud for ${duration(lasted)} (${holeWord(hole.reason)}): ` +
    "what devices published then is lost";
}
