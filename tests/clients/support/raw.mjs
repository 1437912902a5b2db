// A plain HTTP client: every byte of a body as it came, without framing.

import { once } from "node:events";
import { request } from "node:http";

import { eventually } from "../../browser/support/wait.mjs";

const BYTES_MAX = 16 * 1024 * 1024;

export class Raw {
  /** The body so far. */
  body = Buffer.alloc(0);
  /** @type {import("node:http").IncomingMessage} */
  head;
  /** @type {import("node:http").ClientRequest} */
  #request;

  /**
   * Returns once the head is there.
   * @param {string} url
   * @param {Record<string, string>} [headers]
   */
  static async open(url, headers = {}) {
    const raw = new Raw();
    raw.#request = request(url, { headers, agent: false }).end();
    [raw.head] = await once(raw.#request, "response");
    raw.head.on("data", (/** @type {Buffer} */ bytes) => {
      raw.body = Buffer.concat([raw.body, bytes]);
      if (raw.body.length > BYTES_MAX) raw.close();
    });
    raw.head.on("error", () => {});
    raw.#request.on("error", () => {});
    return raw;
  }

  /** The body so far, as text. */
  get text() {
    return this.body.toString("utf8");
  }

  /** How many keep-alives have come: lines of a colon alone, and empty ones that end nothing. */
  get keepalives() {
    let count = 0;
    let inBlock = false;
    for (const line of this.text.split("\n").slice(0, -1)) {
      if (line === ":" || (line === "" && !inBlock)) count += 1;
      else inBlock = line !== "";
    }
    return count;
  }

  /** Waits until a text has come. @param {string} text */
  until(text) {
    return eventually(JSON.stringify(text), () => this.text.includes(text));
  }

  /** Waits until so many further keep-alives have come. @param {number} count @param {number} [withinMs] */
  quiet(count, withinMs) {
    const before = this.keepalives;
    return eventually(`${count} keep-alives`, () => this.keepalives >= before + count, withinMs);
  }

  /** Ends it. */
  close = () => void this.#request.destroy();
}
