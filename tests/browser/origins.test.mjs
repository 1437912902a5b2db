// Pages of another origin: what browsers let them do with a broker that lists their origin, and with
// one that does not.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { Broker } from "./support/broker.mjs";
import { chromium, NETWORK_COMPLAINTS, openPage } from "./support/browser.mjs";
import { Upstream } from "./support/upstream.mjs";

/** What browsers say of a request that the other origin did not allow. */
const REFUSALS = [/has been blocked by CORS policy/, ...NETWORK_COMPLAINTS];

/** @type {Upstream} */
let upstream;
/** @type {Broker} */
let broker;
/** @type {import("./support/browser.mjs").Browser} */
let browser;
/** @type {import("node:http").Server} */
let server;
/** @type {number} */
let port;

before(async () => {
  server = createServer((_, answer) => {
    answer.setHeader("Content-Type", "text/html");
    answer.end("<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>another origin</title>");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  port = /** @type {import("node:net").AddressInfo} */ (server.address()).port;
  upstream = await Upstream.listen();
  broker = await Broker.serve(upstream, [`--server-origins=http://127.0.0.1:${port}`]);
  browser = await chromium();
});
after(async () => {
  await browser?.close();
  upstream?.close();
  server?.closeAllConnections();
  server?.close();
  await broker?.stop();
});

/**
 * What a page at `origin` can do with the broker.
 * @param {string} origin
 */
async function tried(origin) {
  const { page, watch } = await openPage(browser);
  await page.goto(origin);
  const outcome = await page.evaluate(async (url) => {
    /** @param {RequestInit} [init] */
    const reads = (path = "/last", init = {}) =>
      fetch(url + path, init).then((answer) => answer.status, () => "refused");
    /** @type {Promise<string>} */
    const events = new Promise((resolve) => {
      const source = new EventSource(`${url}/events`, { withCredentials: true });
      source.addEventListener("fanlight.hello", () => (source.close(), resolve("read")));
      source.onerror = () => (source.close(), resolve("refused"));
    });
    /** @type {Promise<string>} */
    const socket = new Promise((resolve) => {
      const opened = new WebSocket(`${url.replace("http", "ws")}/ws`, "fanlight.v1");
      opened.onmessage = () => (opened.close(), resolve("read"));
      opened.onerror = () => resolve("refused");
    });
    return {
      events: await events,
      socket: await socket,
      last: await reads(),
      credentials: await reads("/last", { credentials: "include" }),
      preflight: await reads("/last", { headers: { Authorization: "Bearer of-no-one" } }),
      missing: await reads("/nothing"),
      client: await import(`${url}/fanlight.js`).then((module) => typeof module.connect, () => "refused"),
    };
  }, broker.url);
  return { outcome, watch, page };
}

test("a page whose origin is listed uses the broker as its own page does", async () => {
  const { outcome, watch, page } = await tried(`http://127.0.0.1:${port}`);
  assert.deepEqual(outcome, {
    events: "read", socket: "read", last: 200, credentials: 200, preflight: 200, missing: 404, client: "function",
  });
  watch.clean(/Failed to load resource: the server responded with a status of 404/);
  // The client as a whole, with its position and its tabs.
  const data = page.evaluate(async (url) => {
    const { connect } = await import(`${url}/fanlight.js`);
    return new Promise((resolve) => connect(`${url}/`, { snapshot: true, onEvent: (/** @type {any} */ event) => resolve(event.data) }));
  }, broker.url);
  upstream.push("n", "from afar");
  assert.equal(await data, "from afar");
});

test("a page whose origin is another gets nothing, though it is the same machine", async () => {
  const { outcome, watch } = await tried(`http://localhost:${port}`);
  const refused = "refused";
  assert.deepEqual(outcome, {
    events: refused, socket: refused, last: refused, credentials: refused, preflight: refused, missing: refused,
    client: refused,
  });
  watch.clean(...REFUSALS);
});
