// The harness itself: that its broker, upstream, proxy and browsers do what the other tests take for granted.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { chromium, firefox, NETWORK_COMPLAINTS, openFirefoxPage, openPage } from "./support/browser.mjs";
import { Broker } from "./support/broker.mjs";
import { Proxy } from "./support/proxy.mjs";
import { Upstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

/** @type {Upstream} */
let upstream;
/** @type {Broker} */
let broker;
/** @type {Proxy} */
let proxy;

before(async () => {
  upstream = await Upstream.listen();
  broker = await Broker.serve(upstream);
  proxy = await Proxy.before(broker);
  proxy.pages.set("/blank", { type: "text/html", body: "<!doctype html><link rel=icon href=data:,><title>blank</title>" });
});
after(async () => {
  proxy?.close();
  upstream?.close();
  await broker?.stop();
});

/** Runs in a page: the first event's data. */
const firstEvent = () =>
  new Promise((resolve) => {
    const source = new EventSource("/events?since=earliest&name=greeting");
    source.onmessage = ({ data }) => {
      source.close();
      resolve(JSON.parse(data).data);
    };
  });

test("an event goes from upstream to Chromium", async () => {
  const browser = await chromium();
  try {
    const { page, watch } = await openPage(browser);
    await page.goto(`${proxy.url}/blank`);
    upstream.push("greeting", "hello");
    assert.equal(await page.evaluate(firstEvent), "hello");
    watch.clean();
  } finally {
    await browser.close();
  }
});

test("an event goes from upstream to Firefox", async (context) => {
  const browser = await firefox();
  if (!browser) return context.skip("Firefox is not installed");
  try {
    const { page, watch } = await openFirefoxPage(browser);
    await page.goto(`${proxy.url}/blank`);
    upstream.push("greeting", "hello");
    assert.equal(await page.evaluate(firstEvent), "hello");
    watch.clean();
  } finally {
    await browser.close();
  }
});

test("a page's complaints are noticed", async () => {
  const browser = await chromium();
  try {
    const { page, watch } = await openPage(browser);
    proxy.pages.set("/strict", {
      type: "text/html",
      body: "<!doctype html><link rel=icon href=data:,><script>blocked()</script>",
      headers: { "content-security-policy": "script-src 'none'" },
    });
    await page.goto(`${proxy.url}/strict`);
    await eventually("the violation is seen", () => watch.complaints.some((text) => /securitypolicyviolation/.test(text)));
    assert.throws(() => watch.clean(...NETWORK_COMPLAINTS));
  } finally {
    await browser.close();
  }
});

test("a broker that was killed comes back on its port with another epoch", async () => {
  const position = async () => (await broker.json("/poll?since=earliest&timeout=0")).next;
  const { port } = broker;
  const earlier = await position();
  await broker.kill();
  assert.equal((await fetch(`${proxy.url}/status`)).status, 502);
  await broker.start();
  assert.equal(broker.port, port);
  assert.notEqual((await position()).split("-")[0], earlier.split("-")[0]);
  await broker.live();
});

test("the proxy holds back, refuses and cuts", async () => {
  proxy.faults.bufferBytes = 1_000_000;
  const held = fetch(`${proxy.url}/poll?since=earliest&timeout=0`);
  assert.ok(Array.isArray((await (await held).json()).events), "a body that ends is passed on");
  const stream = fetch(`${proxy.url}/events?limit=9`).then(() => "a head", () => "cut");
  await eventually("the broker has answered", () => proxy.asked("/events?limit=9") > 0);
  proxy.cut();
  assert.equal(await stream, "cut");
  proxy.faults.bufferBytes = 0;
  proxy.faults.refuse = (path) => (path === "/status" ? 418 : undefined);
  assert.equal((await fetch(`${proxy.url}/status`)).status, 418);
  proxy.faults.refuse = () => undefined;
  assert.equal((await fetch(`${proxy.url}/status`)).status, 200);
});

test("an upstream that is cut leaves a hole", async () => {
  const opens = upstream.opens;
  upstream.drop();
  await eventually("the broker is back", () => upstream.opens > opens && upstream.connections === 1);
  await eventually("the hole is told", async () => {
    const { events } = await broker.json("/poll?since=earliest&timeout=0");
    return events.some((/** @type {any} */ event) => event.fanlight === "hole");
  });
});
