// What a client tells its application, written down: the same form for every client.

import { eventually } from "../../browser/support/wait.mjs";

const SEEN_MAX = 100_000;

/**
 * An event as the application gets it.
 * @typedef {object} Seen
 * @property {string} name the event's type; for particle-api-js the Particle event's name
 * @property {unknown} data its text; for particle-api-js the parsed object
 * @property {string} id the last id, empty where the client tells none
 */

/** One client on one stream. Clients fill it in; tests read it. */
export class Listener {
  /** The client, with its version. */
  client;
  /**
   * Every event, false ones included, oldest first.
   * @type {Seen[]}
   */
  seen = [];
  /**
   * What else it told: errors, disconnects and reconnects, by name.
   * @type {string[]}
   */
  told = [];
  /** Ends it. @type {() => void} */
  close = () => {};

  /** @param {string} client */
  constructor(client) {
    this.client = client;
  }

  /** @param {Seen} event */
  take(event) {
    if (this.seen.length >= SEEN_MAX) throw new Error(`${this.client} has seen ${SEEN_MAX} events`);
    this.seen.push(event);
  }

  /** What it saw of Particle's events: without what the broker says about itself. */
  get events() {
    return this.seen.filter(({ name }) => !name.startsWith("fanlight."));
  }

  /** Waits until it has seen so many events of Particle's. @param {number} count @param {number} [withinMs] */
  has(count, withinMs) {
    return eventually(`${this.client} has ${count} events`, () => this.events.length >= count, withinMs);
  }
}

/**
 * All of these have so many events.
 * @param {Listener[]} listeners
 * @param {number} count
 * @param {number} [withinMs]
 */
export async function allHave(listeners, count, withinMs) {
  await Promise.all(listeners.map((listener) => listener.has(count, withinMs)));
}
