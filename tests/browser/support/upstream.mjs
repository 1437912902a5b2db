// A scripted upstream: what the broker reads with source `sse`, every event pushed by the test.

import { once } from "node:events";
import { createServer } from "node:http";

/** @typedef {import("node:http").ServerResponse} Stream */

export class Upstream {
  /** Events pushed so far, over all connections. */
  pushed = 0;
  /** @type {Set<Stream>} */
  #streams = new Set();
  #stalled = false;
  #opens = 0;
  /** @type {NodeJS.Timeout | undefined} */
  #heartbeat;
  #server = createServer((_, response) => this.#open(response));

  /** One that listens on a free port. */
  static async listen() {
    const upstream = new Upstream();
    upstream.#server.listen(0, "127.0.0.1");
    await once(upstream.#server, "listening");
    // Twice within the broker's default `upstream.stale_after`.
    upstream.#heartbeat = setInterval(() => upstream.#say(":\n"), 9_000).unref();
    return upstream;
  }

  /** Its stream's address. */
  get url() {
    const address = /** @type {import("node:net").AddressInfo} */ (this.#server.address());
    return `http://127.0.0.1:${address.port}/events`;
  }

  /** How many connections have been opened. */
  get opens() {
    return this.#opens;
  }

  /** How many are open. */
  get connections() {
    return this.#streams.size;
  }

  /**
   * Pushes an event as the Particle cloud would.
   * @param {string} name
   * @param {string} data
   * @param {string} [coreid] the device
   */
  push(name, data, coreid = "e00fce68e8ec2200392752db") {
    this.pushRaw(name, JSON.stringify({ data, ttl: 60, published_at: new Date().toISOString(), coreid }));
  }

  /**
   * Pushes an event with any text as its data; each line becomes a `data:` line.
   * @param {string} name
   * @param {string} text
   */
  pushRaw(name, text) {
    this.pushed += 1;
    const data = text.split("\n").map((line) => `data: ${line}\n`).join("");
    this.#say(`event: ${name}\n${data}\n`);
  }

  /** Breaks all connections; the broker opens new ones. */
  drop() {
    for (const stream of this.#streams) stream.destroy();
    this.#streams.clear();
  }

  /** Says nothing any more, heartbeats included, until `resume`. What is pushed meanwhile is lost. */
  stall() {
    this.#stalled = true;
  }

  /** Ends a stall. */
  resume() {
    this.#stalled = false;
  }

  /** Ends it. */
  close() {
    clearInterval(this.#heartbeat);
    this.drop();
    this.#server.close();
  }

  /** @param {Stream} stream */
  #open(stream) {
    this.#opens += 1;
    stream.writeHead(200, { "content-type": "text/event-stream" });
    stream.write(":ok\n\n");
    this.#streams.add(stream);
    stream.once("close", () => this.#streams.delete(stream));
  }

  /** @param {string} text */
  #say(text) {
    if (this.#stalled) return;
    for (const stream of this.#streams) stream.write(text);
  }
}
