// A reverse proxy between browser and broker, with faults. It also serves the test's own pages, so
// that they have the broker's origin.

import { once } from "node:events";
import { createServer, request } from "node:http";
import { connect } from "node:net";

/** @typedef {import("node:http").IncomingMessage} Request */
/** @typedef {import("node:http").ServerResponse} Response */
/** @typedef {import("node:net").Socket} Socket */

/**
 * Set at any time; a fault concerns what comes after, but for `stalls`, which concerns all.
 * @typedef {object} Faults
 * @property {number} bufferBytes hold bodies back until so many bytes or their end; 0 is off
 * @property {number} delayMs wait so long before a request is passed on
 * @property {"pass" | "refuse" | "hang"} websocket what becomes of upgrades: 403, or no answer
 * @property {(path: string) => number | undefined} refuse the status a path is answered with
 * @property {(path: string) => boolean} stalls connections stay open and nothing goes to the browser any more
 */

/** @typedef {{ method: string, url: string, status: number }} Passed */

const LOG_MAX = 10_000;

export class Proxy {
  /** @type {Faults} */
  faults = { bufferBytes: 0, delayMs: 0, websocket: "pass", refuse: () => undefined, stalls: () => false };
  /**
   * Files and pages of its own, by path. They come before the broker's.
   * @type {Map<string, { type: string, body: string | Buffer, headers?: Record<string, string> }>}
   */
  pages = new Map();
  /**
   * What was asked for, in the order of the answers' heads.
   * @type {Passed[]}
   */
  log = [];
  /** @type {{ port: number }} */
  #target;
  /** @type {Set<Socket>} */
  #sockets = new Set();
  #server = createServer((asked, answer) => void this.#answer(asked, answer));

  /**
   * @param {{ port: number }} target what it stands before; a dead one makes it answer 502
   */
  static async before(target) {
    const proxy = new Proxy(target);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  /** @param {{ port: number }} target */
  constructor(target) {
    this.#target = target;
    this.#server.on("upgrade", (asked, socket, head) => this.#upgrade(asked, /** @type {Socket} */ (socket), head));
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
      socket.on("error", () => socket.destroy());
    });
    this.#server.keepAliveTimeout = 60_000;
  }

  /** Its origin. */
  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Its port. */
  get port() {
    return /** @type {import("node:net").AddressInfo} */ (this.#server.address()).port;
  }

  /** How many connections browsers have open to it. */
  get connections() {
    return this.#sockets.size;
  }

  /** How many requests for paths that begin so it has answered. @param {string} path */
  asked(path) {
    return this.log.filter(({ url }) => url.startsWith(path)).length;
  }

  /** Cuts all connections. */
  cut() {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** Ends it. */
  close() {
    this.#server.close();
    this.cut();
  }

  /** @param {Request} asked @param {number} status */
  #note(asked, status) {
    const passed = { method: asked.method ?? "", url: asked.url ?? "", status };
    if (this.log.push(passed) > LOG_MAX) this.log.shift();
  }

  /** @param {Request} asked @param {Response} answer */
  async #answer(asked, answer) {
    const path = (asked.url ?? "").split("?")[0];
    const page = this.pages.get(path);
    if (page) {
      answer.writeHead(200, { "content-type": page.type, "cache-control": "no-cache", ...page.headers });
      answer.end(page.body);
      return;
    }
    if (this.faults.delayMs) await new Promise((resolve) => setTimeout(resolve, this.faults.delayMs));
    const refused = this.faults.refuse(path);
    if (refused !== undefined) return this.#refuse(asked, answer, refused);

    const { method, url, headers } = asked;
    const passed = request({ host: "127.0.0.1", port: this.#target.port, method, path: url, headers, agent: false });
    passed.once("error", () => (answer.headersSent ? answer.destroy() : this.#refuse(asked, answer, 502)));
    answer.once("close", () => passed.destroy());
    passed.once("response", (response) => {
      this.#note(asked, response.statusCode ?? 0);
      this.#body(path, response, answer);
    });
    asked.pipe(passed);
  }

  /** @param {Request} asked @param {Response} answer @param {number} status */
  #refuse(asked, answer, status) {
    this.#note(asked, status);
    answer.writeHead(status, { "content-type": "text/plain", "cache-control": "no-store" });
    answer.end(`refused with ${status}\n`);
  }

  /** @param {string} path @param {Request} response @param {Response} answer */
  #body(path, response, answer) {
    const { bufferBytes } = this.faults;
    const stalled = () => this.faults.stalls(path);
    const { connection: _, "keep-alive": __, "transfer-encoding": ___, ...headers } = response.headers;
    /** @type {Buffer[]} */
    let held = [];
    let open = bufferBytes === 0;
    const begin = () => {
      if (answer.headersSent) return;
      answer.writeHead(response.statusCode ?? 502, headers);
      answer.flushHeaders();
    };
    if (open && !stalled()) begin();
    response.on("data", (/** @type {Buffer} */ chunk) => {
      if (stalled()) return;
      if (!open) {
        held.push(chunk);
        open = held.reduce((sum, { length }) => sum + length, 0) >= bufferBytes;
        if (!open) return;
        begin();
        for (const earlier of held) answer.write(earlier);
        held = [];
        return;
      }
      begin();
      answer.write(chunk);
    });
    response.once("end", () => {
      if (stalled()) return;
      begin();
      for (const earlier of held) answer.write(earlier);
      answer.end();
    });
    response.once("error", () => answer.destroy());
  }

  /** @param {Request} asked @param {Socket} socket @param {Buffer} head */
  #upgrade(asked, socket, head) {
    const path = (asked.url ?? "").split("?")[0];
    if (this.faults.websocket === "hang") return;
    const refused = this.faults.websocket === "refuse" ? 403 : this.faults.refuse(path);
    if (refused !== undefined) {
      this.#note(asked, refused);
      socket.end(`HTTP/1.1 ${refused} Refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
      return;
    }
    const broker = connect(this.#target.port, "127.0.0.1");
    broker.once("connect", () => {
      this.#note(asked, 101);
      const lines = [`${asked.method} ${asked.url} HTTP/1.1`];
      for (let index = 0; index < asked.rawHeaders.length; index += 2) {
        lines.push(`${asked.rawHeaders[index]}: ${asked.rawHeaders[index + 1]}`);
      }
      broker.write(`${lines.join("\r\n")}\r\n\r\n`);
      broker.write(head);
      socket.pipe(broker);
      broker.on("data", (chunk) => {
        if (!this.faults.stalls(path)) socket.write(chunk);
      });
    });
    broker.once("error", () => socket.end("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
    broker.once("close", () => this.faults.stalls(path) || socket.destroy());
    socket.once("close", () => broker.destroy());
  }
}
