// The client in Chromium behind a proxy with faults: whatever happens on the way, what the page saw is
// contiguous, or a gap declared the rest.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { chromium, NETWORK_COMPLAINTS, openPage } from "./support/browser.mjs";
import { Broker } from "./support/broker.mjs";
import { assertContiguous, Client, serveClient } from "./support/client.mjs";
import { Proxy } from "./support/proxy.mjs";
import { Upstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const FLOW_MS = 20;
const KILLS = 20;
const SETTLED = [...NETWORK_COMPLAINTS, /WebSocket is closed before the connection is established/];

/** @type {import("playwright-core").Browser} */
let browser;
/** @type {Upstream} */
let upstream;
/** @type {Broker} */
let broker;
/** @type {Proxy} */
let proxy;
/** @type {import("playwright-core").Page} */
let page;
/** @type {import("./support/browser.mjs").Watch} */
let watch;
let count = 0;
/** @type {NodeJS.Timeout | undefined} */
let flowing;

before(async () => {
  browser = await chromium();
  upstream = await Upstream.listen();
  broker = await Broker.serve(upstream);
});
after(async () => {
  await browser?.close();
  upstream?.close();
  await broker?.stop();
});
beforeEach(async () => {
  proxy = await Proxy.before(broker);
  serveClient(proxy);
  ({ page, watch } = await openPage(browser));
});
afterEach(async () => {
  clearInterval(flowing);
  await page.context().close();
  proxy.close();
});

/** Pushes the next event. */
function push() {
  upstream.push("n", String((count += 1)));
  return String(count);
}

/** Pushes events until the result is called; that pushes a last one and returns its data. */
function flow() {
  flowing = setInterval(push, FLOW_MS);
  return () => {
    clearInterval(flowing);
    return push();
  };
}

/** The page says that the network is another one: what waits is tried now. */
const online = () => page.evaluate(() => void window.dispatchEvent(new Event("online")));

/** The page was looked at again. */
const looked = () => page.evaluate(() => void document.dispatchEvent(new Event("visibilitychange")));

/** Does what breaks a stream, and waits until the client has noticed. @param {Client} client @param {() => unknown} act */
async function broken(client, act) {
  const { length } = await client.states();
  await act();
  await eventually("it is noticed", async () => (await client.states()).slice(length).some(({ state }) => state !== "open"));
}

/** Ends the flow and checks all that was seen. @param {Client} client @param {() => string} end @param {RegExp[]} [expected] */
async function assertWhole(client, end, expected = SETTLED) {
  await client.saw(end());
  assertContiguous(await client.seen());
  watch.clean(...expected);
}

test("behind a proxy that holds streams back it takes the WebSocket", async () => {
  proxy.faults.bufferBytes = 1_000_000;
  const end = flow();
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened("websocket");
  await assertWhole(client, end);
});

test("where WebSockets are refused as well it polls", async () => {
  proxy.faults.bufferBytes = 1_000_000;
  proxy.faults.websocket = "refuse";
  const end = flow();
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened("poll");
  await assertWhole(client, end);
});

test("where WebSockets are left without an answer it polls", async () => {
  proxy.faults.refuse = (path) => (path === "/events" ? 503 : undefined);
  proxy.faults.websocket = "hang";
  const end = flow();
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened("poll");
  await assertWhole(client, end);
});

test("without EventSource and WebSocket in the browser it polls", async () => {
  await page.addInitScript(() => {
    for (const name of ["EventSource", "WebSocket"]) Reflect.deleteProperty(globalThis, name);
  });
  const end = flow();
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened("poll");
  await assertWhole(client, end, []);
});

test("it climbs back to the better transport, and nothing is lost or repeated", async () => {
  proxy.faults.refuse = (path) => (path === "/events" ? 503 : undefined);
  proxy.faults.websocket = "refuse";
  const end = flow();
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened("poll");
  proxy.faults.websocket = "pass";
  await online();
  await client.opened("websocket");
  proxy.faults.refuse = () => undefined;
  await online();
  await client.opened("sse");
  await broken(client, () => proxy.cut()); // What it has climbed to is looked after as well.
  await client.opened("sse");
  await assertWhole(client, end);
  assert.equal((await client.seen()).filter(({ kind }) => kind === "gap").length, 0);
});

test("it climbs by itself after a while", async () => {
  await page.clock.install();
  proxy.faults.refuse = (path) => (path === "/events" ? 503 : undefined);
  const end = flow();
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened("websocket");
  proxy.faults.refuse = () => undefined;
  await page.clock.fastForward(60_000);
  await client.opened("sse");
  await assertWhole(client, end);
});

test("the order of transports is the page's", async () => {
  const end = flow();
  const client = await Client.open(page, proxy.url, { since: "earliest", transports: ["poll", "sse"] });
  await client.opened("poll");
  await assertWhole(client, end, []);
});

test("streams that are cut again and again", async () => {
  const end = flow();
  const client = await Client.open(page, proxy.url, { since: "earliest", transports: ["sse", "websocket"] });
  for (let cuts = 0; cuts < 8; cuts += 1) {
    await client.opened();
    await client.saw(push());
    await broken(client, () => proxy.cut());
    await online();
  }
  await assertWhole(client, end);
});

test("a proxy that answers 502 while the broker restarts", async () => {
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened("sse");
  await client.saw(push());
  await broker.kill();
  await eventually("refused with 502", () => proxy.log.some(({ url, status }) => url.startsWith("/events") && status === 502));
  await broker.start();
  await broker.live();
  await client.opened();
  await client.saw(push());
  assert.deepEqual((await client.seen()).filter(({ kind }) => kind === "gap").map(({ item }) => item.reason), ["restart"]);
  assertContiguous(await client.seen());
  watch.clean(...SETTLED);
});

test("an orderly restart is waited for as the broker says", async () => {
  await page.clock.install();
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened("sse");
  await broker.stop();
  await eventually("the goodbye is told", async () => {
    const { state, reason, retryAt } = await client.state();
    return state === "waiting" && reason === "shutdown" && retryAt;
  });
  await broker.start();
  await broker.live();
  await page.clock.fastForward(30_000); // The longest wait of a shutdown.
  await client.opened("sse");
  await client.saw(push());
  assertContiguous(await client.seen());
  watch.clean(...SETTLED);
});

test(`a broker that is killed ${KILLS} times`, async () => {
  const end = flow();
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened();
  for (let kills = 0; kills < KILLS; kills += 1) {
    await broken(client, () => broker.kill());
    await broker.start();
    await broker.live();
    const data = push();
    await online();
    await client.saw(data);
  }
  await assertWhole(client, end);
  const gaps = (await client.seen()).filter(({ kind }) => kind === "gap");
  assert.deepEqual(gaps.map(({ item }) => item.reason), Array(KILLS).fill("restart"));
});

test("an upstream that is cut is told as a hole", async () => {
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.saw(push());
  upstream.drop();
  const hole = await eventually("a hole", async () => (await client.seen()).find(({ kind }) => kind === "hole"));
  assert.equal(hole.item.reason, "reset");
  await broker.live();
  await client.saw(push());
  const states = (await client.seen()).filter(({ kind }) => kind === "upstream").map(({ item }) => item.state);
  assert.deepEqual(states.slice(-3), ["backing-off", "connecting", "live"].slice(-3));
  assertContiguous(await client.seen());
  watch.clean();
});

test("a stream that has gone deaf is noticed when the page is looked at", async () => {
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened("sse");
  await client.saw(push());
  proxy.faults.stalls = (path) => path === "/events";
  const data = push();
  await looked();
  await client.saw(data, 3_000); // By the poll, before the stream is opened again.
  proxy.faults.stalls = () => false;
  await eventually("another stream", () => proxy.asked("/events") === 2);
  await client.opened("sse");
  await client.saw(push());
  assertContiguous(await client.seen());
  watch.clean();
});

test("a stream that has gone deaf is noticed after some silence", async () => {
  await page.clock.install();
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened("sse");
  await client.saw(push());
  proxy.faults.stalls = (path) => path === "/events";
  const data = push();
  await page.clock.fastForward(45_000);
  await page.clock.fastForward(45_000);
  await client.saw(data);
  proxy.faults.stalls = () => false;
  await page.clock.fastForward(3_000);
  await eventually("another stream", async () => {
    await page.clock.fastForward(1_000);
    return proxy.asked("/events") === 2;
  });
  await client.saw(push());
  assertContiguous(await client.seen());
  watch.clean();
});

test("a machine that was offline", async () => {
  const client = await Client.open(page, proxy.url, { since: "earliest" });
  await client.opened("sse");
  await client.saw(push());
  await page.context().setOffline(true);
  proxy.cut();
  await eventually("it is told", async () => (await client.state()).state === "offline");
  const missed = push();
  await page.context().setOffline(false);
  await client.saw(missed);
  await client.opened();
  await client.saw(push());
  assertContiguous(await client.seen());
  watch.clean(...SETTLED);
});

test("what the broker refuses is told with its reason", async () => {
  const client = await Client.open(page, proxy.url, { since: "yesterday" });
  const reason = await eventually("a reason", async () => (await client.states()).find(({ reason }) => reason?.startsWith("400"))?.reason);
  assert.match(reason, /since.*yesterday/);
  watch.clean(...SETTLED);
});

test("messages that are none, and a page that throws, stop nothing", async () => {
  proxy.pages.set("/events", {
    type: "text/event-stream",
    body: [
      'id: aaaaaaaa-0\nevent: fanlight.hello\ndata: {"id":"aaaaaaaa-0","upstream":"live"}',
      'id: aaaaaaaa-1\ndata: {"name":"n","data":"1"}', "id: aaaaaaaa-2\ndata: {nonsense", "id: aaaaaaaa-3\ndata: null",
      "id: aaaaaaaa-4\nevent: fanlight.nonsense\ndata: {}", 'id: aaaaaaaa-5\ndata: {"name":"n","data":"5"}',
    ].map((block) => `${block}\n\n`).join(""),
  });
  await page.goto(`${proxy.url}/page`);
  const seen = await page.evaluate(async () => {
    // @ts-ignore: the page's address, not a file's
    const { connect } = await import("/fanlight.js");
    return new Promise((resolve) => {
      /** @type {string[]} */
      const seen = [];
      const connection = connect("/", {
        transports: ["sse"],
        onEvent: (/** @type {any} */ { data }) => {
          seen.push(data);
          if (data === "5") {
            connection.close();
            resolve(seen);
          }
          throw new Error(`the page threw at ${data}`);
        },
      });
    });
  });
  assert.deepEqual(seen.filter((/** @type {any} */ data) => data), ["1", "5"]);
  await eventually("both are reported", () =>
    [/threw at 1/, /JSON/, /threw at 5/].every((form) => watch.complaints.some((text) => form.test(text))));
});
