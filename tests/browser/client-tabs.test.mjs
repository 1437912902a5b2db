// Many tabs, one connection: tabs come, go, crash and hang while events flow, and each tab that stays
// sees everything, once.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { chromium, INSECURE_HOST, openPage } from "./support/browser.mjs";
import { Broker } from "./support/broker.mjs";
import { assertContiguous, Client, serveClient } from "./support/client.mjs";
import { Proxy } from "./support/proxy.mjs";
import { Random } from "./support/random.mjs";
import { Upstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const TABS = 10;
const HANDOVERS = 8;
const ACTS = 40;
const FLOW_MS = 20;

/** @typedef {{ client: Client, page: import("playwright-core").Page }} Tab */

/** @type {import("playwright-core").Browser} */
let browser;
/** @type {import("playwright-core").BrowserContext} */
let context;
/** @type {Upstream} */
let upstream;
/** @type {Broker} */
let broker;
/** @type {Proxy} */
let proxy;
let count = 0;
/** @type {NodeJS.Timeout | undefined} */
let flowing;

before(async () => {
  browser = await chromium();
  upstream = await Upstream.listen();
  broker = await Broker.serve(upstream, [`--server-hosts=${INSECURE_HOST}`]);
});
after(async () => {
  await browser?.close();
  upstream?.close();
  await broker?.stop();
});
beforeEach(async () => {
  proxy = await Proxy.before(broker);
  serveClient(proxy);
  context = await browser.newContext();
});
afterEach(async () => {
  clearInterval(flowing);
  await context.close();
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

/** @param {import("../../web/fanlight.js").Options} [options] @returns {Promise<Tab>} */
async function openTab(options = { since: "earliest" }) {
  const { page } = await openPage(context);
  return { page, client: await Client.open(page, proxy.url, options) };
}

/** The tab that leads, once one of these does and its line is open. @param {Tab[]} tabs */
const leader = (tabs) => eventually("one leads", async () => {
  for (const tab of tabs) {
    const { shared, state } = await tab.client.state();
    if (shared === "leader" && state === "open") return tab;
  }
});

/** @type {Record<string, (tab: Tab) => Promise<unknown>>} how a tab can end */
const ENDS = {
  closed: ({ page }) => page.close(),
  "left by a link": ({ page }) => page.goto("about:blank"),
  "closed by the page": ({ client }) => client.close(),
  crashed: async ({ page }) => {
    const session = await page.context().newCDPSession(page);
    const crashed = new Promise((resolve) => page.once("crash", resolve));
    session.send("Page.crash").catch(() => {});
    await crashed;
  },
};

test(`${TABS} tabs have one connection, and hand it over ${HANDOVERS} times`, async (context) => {
  const random = new Random(context);
  const end = flow();
  let tabs = [await openTab()];
  while (tabs.length < TABS) tabs.push(await openTab());
  for (let handovers = 0; handovers < HANDOVERS; handovers += 1) {
    const leading = await leader(tabs);
    const how = random.pick(Object.keys(ENDS));
    context.diagnostic(`the leader is ${how}`);
    await ENDS[how](leading);
    tabs = tabs.filter((tab) => tab !== leading);
    if (random.below(2)) tabs.push(await openTab());
    await leader(tabs);
    for (const { client } of tabs) await client.saw(push());
  }
  const last = end();
  for (const { client } of tabs) {
    await client.saw(last);
    assertContiguous(await client.seen());
  }
  const shared = await Promise.all(tabs.map(async ({ client }) => (await client.state()).shared));
  assert.deepEqual(shared.filter((role) => role !== "follower"), ["leader"]);
});

test("tabs that join late see their past first, without a seam", async () => {
  const end = flow();
  const first = await openTab();
  await first.client.opened();
  await first.client.saw(push());
  const position = await first.client.position();
  const whole = await openTab({ since: "earliest" });
  const resumed = await openTab({ lastEventId: position });
  const live = await openTab({});
  const newest = await openTab({ snapshot: true });
  const tabs = [first, whole, resumed, live, newest];
  for (const { client } of tabs) await client.opened("sse");
  const last = end();
  for (const { client } of tabs) {
    await client.saw(last);
    const seen = await client.seen();
    assertContiguous(client === newest.client ? seen.filter(({ kind }) => kind === "event").slice(1) : seen);
  }
  assert.deepEqual(await whole.client.data(), await first.client.data());
  const ids = (await first.client.seen()).map(({ item }) => item.id);
  const resumedIds = (await resumed.client.seen()).filter(({ item }) => item.id).map(({ item }) => item.id);
  assert.deepEqual(resumedIds, ids.slice(ids.indexOf(position) + 1));
  assert.equal(proxy.asked("/events"), 1);
});

test("another filter has another connection", async () => {
  const one = await openTab({});
  const other = await openTab({ prefix: "greenhouse/" });
  const same = await openTab({ prefix: ["greenhouse/"] });
  for (const { client } of [one, other, same]) await client.opened();
  assert.equal((await one.client.state()).shared, "leader");
  assert.equal((await other.client.state()).shared, "leader");
  assert.equal((await same.client.state()).shared, "follower");
  upstream.push("greenhouse/temp", "21");
  for (const { client } of [one, other, same]) await client.saw("21");
});

test("tabs that are not to share do not", async () => {
  const tabs = [await openTab({ share: false }), await openTab({ share: false })];
  for (const { client } of tabs) {
    await client.opened();
    assert.equal((await client.state()).shared, "alone");
  }
  assert.equal(proxy.asked("/events"), 2);
});

test(`${TABS} tabs over plain http from another machine, where they cannot share`, async () => {
  const tabs = [];
  for (let count = 0; count < TABS; count += 1) {
    const { page } = await openPage(context);
    tabs.push(await Client.open(page, `http://${INSECURE_HOST}:${proxy.port}`));
  }
  assert.equal(await tabs[0].page.evaluate(() => globalThis.isSecureContext), false);
  for (const client of tabs) {
    await client.opened("websocket");
    assert.equal((await client.state()).shared, "alone");
  }
  const last = push();
  for (const client of tabs) await client.saw(last);
});

test("a broker that restarts is told to all tabs", async () => {
  const tabs = [await openTab(), await openTab(), await openTab()];
  for (const { client } of tabs) await client.saw(push());
  await broker.kill();
  await broker.start();
  await broker.live();
  const last = push();
  for (const { client } of tabs) {
    await client.saw(last);
    const seen = await client.seen();
    assertContiguous(seen);
    assert.equal(seen.filter(({ kind, item }) => kind === "gap" && item.reason === "restart").length, 1);
  }
});

test("a change of the upstream is told once in every tab", async () => {
  const tabs = [await openTab(), await openTab()];
  for (const { client } of tabs) await client.saw(push());
  const told = async (/** @type {Tab} */ { client }) => (await client.seen()).filter(({ kind, item }) => kind === "upstream" && item.id);
  const before = (await told(tabs[0])).length;
  upstream.drop();
  for (const tab of tabs) {
    await eventually("it is live again", async () => (await told(tab)).slice(before).at(-1)?.item.state === "live");
    await tab.client.saw(push());
    const states = (await tab.client.seen()).filter(({ kind }) => kind === "upstream").map(({ item }) => item.state);
    for (const [i, state] of states.slice(1).entries()) assert.notEqual(state, states[i], `${states}`);
  }
});

test("a leader that hangs is replaced once another tab is looked at", async () => {
  const hangs = await openTab();
  await hangs.client.opened();
  const waits = await openTab();
  await waits.client.opened();
  const later = await openTab();
  await later.client.opened();
  // Deaf and mute, but it holds the lock.
  await hangs.page.evaluate(() => {
    BroadcastChannel.prototype.postMessage = () => {};
  });
  const data = push();
  await hangs.client.saw(data);
  await waits.page.evaluate(() => void document.dispatchEvent(new Event("visibilitychange")));
  await waits.client.saw(data);
  await eventually("it leads", async () => (await waits.client.state()).shared === "leader");
  await eventually("the other follows", async () => (await hangs.client.state()).shared === "follower");
  await later.client.saw(data);
  const last = push();
  for (const { client } of [hangs, waits, later]) {
    await client.saw(last);
    assertContiguous(await client.seen());
  }
});

test(`${ACTS} things that happen, at random`, async (context) => {
  const random = new Random(context);
  const end = flow();
  let tabs = [await openTab(), await openTab(), await openTab()];
  /** @param {Tab} tab @param {string[]} types events the browser would tell the page of */
  const told = ({ page }, ...types) => page.evaluate((types) => {
    for (const type of types) (type === "online" ? window : document).dispatchEvent(new Event(type));
  }, types);
  /** @type {Record<string, () => unknown>} */
  const acts = {
    "a tab ends": async () => {
      if (tabs.length < 2) return;
      const tab = random.pick(tabs);
      tabs = tabs.filter((other) => other !== tab);
      await ENDS[random.pick(Object.keys(ENDS))](tab);
    },
    "a tab opens": async () => tabs.length < TABS && tabs.push(await openTab(random.pick([{ since: "earliest" }, {}, { since: "1s" }]))),
    "connections are cut": () => proxy.cut(),
    "the broker restarts": async () => {
      await broker.kill();
      await broker.start();
      await broker.live();
    },
    "streams are refused": () => void (proxy.faults.refuse = (path) => (path === "/events" ? 503 : undefined)),
    "WebSockets are refused": () => void (proxy.faults.websocket = "refuse"),
    "all is well": () => void Object.assign(proxy.faults, { refuse: () => undefined, websocket: "pass" }),
    "a tab comes online": () => told(random.pick(tabs), "online"),
    "a tab is looked at": () => told(random.pick(tabs), "visibilitychange"),
    "a tab is put aside for a moment": () => told(random.pick(tabs), "freeze", "resume"),
  };
  for (let count = 0; count < ACTS; count += 1) {
    const act = random.pick(Object.keys(acts));
    context.diagnostic(act);
    await acts[act]();
    await random.pick(tabs).client.position(); // A round trip, so that things happen in between.
  }
  acts["all is well"]();
  for (const tab of tabs) await told(tab, "online");
  for (const { client } of tabs) await client.opened(); // One that opened last has its place now.
  const last = end();
  for (const { client } of tabs) {
    await client.saw(last, 60_000);
    assertContiguous(await client.seen());
  }
});

test("a tab that missed what the leader passed on fills it in", async () => {
  const lastEventId = (await broker.json("/poll?timeout=0")).next;
  const leads = await openTab({ lastEventId });
  await leads.client.opened();
  const follows = await openTab({ lastEventId });
  await follows.client.opened();
  await leads.page.evaluate(() => {
    const { postMessage } = BroadcastChannel.prototype;
    Object.assign(globalThis, { restore: () => (BroadcastChannel.prototype.postMessage = postMessage) });
    BroadcastChannel.prototype.postMessage = () => {};
  });
  await leads.client.saw(push());
  await leads.page.evaluate(() => void /** @type {any} */ (globalThis).restore());
  await follows.client.saw(push());
  assertContiguous(await follows.client.seen());
  assert.deepEqual(await follows.client.data(), await leads.client.data());
  const polls = proxy.asked("/poll");
  for (let index = 0; index < 20; index += 1) await follows.client.saw(push());
  assert.equal(proxy.asked("/poll"), polls, "what joins on needs no polls");
});

test("what is no batch on the channel is passed over", async () => {
  const { client, page } = await openTab();
  const follower = await openTab();
  await follower.client.opened();
  await page.evaluate(() => {
    const channel = new BroadcastChannel(`fanlight/1 ${location.origin}/ []`);
    for (const message of [{}, { joins: 1 }, { items: 7 }, { from: "zzzzzzzz-9", items: [], state: { state: "open" } }]) {
      channel.postMessage(message);
    }
  });
  const last = push();
  for (const each of [client, follower.client]) {
    await each.saw(last);
    assertContiguous(await each.seen());
  }
});

// Last: the broker holds it from then on, and no test could read it from a page.
test("what cannot be passed on to other tabs is fetched by them", async () => {
  const tabs = [await openTab(), await openTab()];
  for (const { client } of tabs) await client.saw(push());
  const deep = 20_000; // Beyond what a browser copies from tab to tab.
  upstream.pushRaw("deep", `{"data":${"[".repeat(deep)}${"]".repeat(deep)}}`);
  for (const { client, page } of tabs) {
    await client.saw(push());
    const seen = await page.evaluate(() => /** @type {any} */ (globalThis).seen.map((/** @type {any} */ { kind, item }) =>
      ({ kind, item: { id: item.id, reason: item.reason, from: item.from, to: item.to } })));
    assertContiguous(seen);
  }
});
