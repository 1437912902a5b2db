// A page with the browser client in it, and the check that what it saw is contiguous or declared.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { eventually } from "./wait.mjs";

/** @typedef {import("../../../web/fanlight.js").Options} Options */
/** @typedef {import("../../../web/fanlight.js").State} State */
/** @typedef {{ kind: "event" | "gap" | "hole" | "upstream", item: any }} Seen */
/**
 * A page of either browser.
 * @typedef {object} Evaluates
 * @property {(url: string) => Promise<unknown>} goto
 * @property {<A, R>(run: (argument: A) => R | Promise<R>, argument?: A) => Promise<R>} evaluate
 */

/** The client as it is in the folder, whatever the binary has compiled in. */
export const CLIENT = readFileSync(new URL("../../../web/fanlight.js", import.meta.url));

const PAGE = "<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>client</title>";

/**
 * Lets a proxy serve the client, and a blank page at `/page`.
 * @param {import("./proxy.mjs").Proxy} proxy
 */
export function serveClient(proxy) {
  proxy.pages.set("/fanlight.js", { type: "text/javascript; charset=utf-8", body: CLIENT });
  proxy.pages.set("/page", { type: "text/html", body: PAGE });
  proxy.pages.set("/favicon.ico", { type: "image/svg+xml", body: "<svg xmlns='http://www.w3.org/2000/svg'/>" });
}

/** One connection of the client, in a page. */
export class Client {
  /** @type {Evaluates} */
  page;

  /** @param {any} page of Playwright or of Puppeteer */
  constructor(page) {
    this.page = page;
  }

  /**
   * Opens the blank page and connects in it.
   * @param {any} page
   * @param {string} origin
   * @param {Options} [options] what can be sent to a page: no functions
   */
  static async open(page, origin, options = {}) {
    await page.goto(`${origin}/page`);
    const client = new Client(page);
    await client.connect(options);
    return client;
  }

  /** @param {Options} options */
  connect(options) {
    return this.page.evaluate(async (options) => {
      const there = /** @type {any} */ (globalThis);
      // @ts-ignore: the page's address, not a file's
      const { connect } = await import("/fanlight.js");
      there.seen = [];
      there.states = [];
      /** @param {string} kind */
      const note = (kind) => (/** @type {any} */ item) => there.seen.push({ kind, item });
      there.connection = connect("/", {
        ...options,
        onEvent: note("event"),
        onGap: note("gap"),
        onHole: note("hole"),
        onUpstream: note("upstream"),
        onState: (/** @type {any} */ state) => there.states.push(state),
      });
    }, options);
  }

  /** @returns {Promise<Seen[]>} */
  seen() {
    return this.page.evaluate(() => /** @type {any} */ (globalThis).seen);
  }

  /** The data of the events it saw, in order. */
  async data() {
    return (await this.seen()).filter(({ kind }) => kind === "event").map(({ item }) => item.data);
  }

  /** The states it told, in order. @returns {Promise<State[]>} */
  states() {
    return this.page.evaluate(() => /** @type {any} */ (globalThis).states);
  }

  /** @returns {Promise<State>} */
  state() {
    return this.page.evaluate(() => /** @type {any} */ (globalThis).connection.state);
  }

  /** @returns {Promise<string>} */
  position() {
    return this.page.evaluate(() => /** @type {any} */ (globalThis).connection.position);
  }

  /** Waits until it is open. @param {string} [transport] over this one */
  opened(transport) {
    return eventually(`open over ${transport ?? "any transport"}`, async () => {
      const state = await this.state();
      return state.state === "open" && (!transport || state.transport === transport);
    });
  }

  /** Waits until it saw an event with this data. @param {string} data @param {number} [withinMs] */
  saw(data, withinMs) {
    return eventually(`an event with ${data}`, () => this.page.evaluate(
      (data) => /** @type {any} */ (globalThis).seen.some((/** @type {any} */ { item }) => item.data === data), data), withinMs);
  }

  close() {
    return this.page.evaluate(() => /** @type {any} */ (globalThis).connection.close());
  }
}

/**
 * That records seen without a filter are contiguous within each epoch, from the first one on, except
 * where a gap says otherwise; and that an epoch begins with a gap. The memory log leaves no number out.
 * @param {Seen[]} seen
 */
export function assertContiguous(seen) {
  let epoch = "";
  let last = 0;
  let broken = true;
  for (const { kind, item } of seen) {
    if (!item.id) continue; // The state of the upstream that came with a hello.
    const [itsEpoch, text] = item.id.split("-");
    const seq = Number(text);
    const where = `${item.id} after ${epoch}-${last}`;
    if (kind === "gap" && !["oversize", "refused"].includes(item.reason)) {
      broken = true;
      if (item.reason === "restart") [epoch, last] = [itsEpoch, seq];
      else if (item.to - 1 > last) last = item.to - 1;
      continue;
    }
    if (itsEpoch === epoch) assert.equal(seq, last + 1, `${where}: neither contiguous nor declared`);
    else assert.ok(broken, `${where}: another epoch and no gap`);
    [epoch, last, broken] = [itsEpoch, seq, false];
  }
}
