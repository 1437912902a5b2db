// The client as users have it, in Chromium and Firefox: served by the broker itself, pasted from the
// documents, and put aside by the browser.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium, firefox, NETWORK_COMPLAINTS, openFirefoxPage, openPage } from "./support/browser.mjs";
import { Broker } from "./support/broker.mjs";
import { assertContiguous, Client, CLIENT, serveClient } from "./support/client.mjs";
import { Proxy } from "./support/proxy.mjs";
import { Upstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const ROOT = new URL("../../", import.meta.url);

/** @typedef {import("./support/browser.mjs").Watch} Watch */
/** @typedef {{ page: any, watch: Watch, close: () => Promise<unknown> }} Opened */

/** @type {Upstream} */
let upstream;
/** @type {Broker} */
let broker;
/** @type {Proxy} */
let proxy;
let count = 0;

before(async () => {
  upstream = await Upstream.listen();
  broker = await Broker.serve(upstream, [`--server-web-dir=${fileURLToPath(new URL("web", ROOT))}`]);
  proxy = await Proxy.before(broker);
  serveClient(proxy);
});
after(async () => {
  proxy?.close();
  upstream?.close();
  await broker?.stop();
});

/** Pushes the next event. */
function push() {
  upstream.push("n", String((count += 1)));
  return String(count);
}

/** @type {Record<string, () => Promise<Opened | undefined>>} a page in each browser */
const BROWSERS = {
  Chromium: async () => {
    const browser = await chromium();
    return { ...(await openPage(browser)), close: () => browser.close() };
  },
  Firefox: async () => {
    const browser = await firefox();
    return browser && { ...(await openFirefoxPage(browser)), close: () => browser.close() };
  },
};

for (const [name, open] of Object.entries(BROWSERS)) {
  test(`in ${name}, over each transport, through cuts and a restart`, async (context) => {
    const opened = await open();
    if (!opened) return context.skip(`${name} is not installed`);
    const { page, watch, close } = opened;
    try {
      for (const transport of /** @type {const} */ (["sse", "websocket", "poll"])) {
        const client = await Client.open(page, proxy.url, { since: "earliest", transports: [transport] });
        await client.opened(transport);
        for (let index = 0; index < 20; index += 1) push();
        await client.saw(push());
        proxy.cut();
        await client.saw(push());
        await broker.kill();
        await broker.start();
        await broker.live();
        await client.saw(push());
        const seen = await client.seen();
        assertContiguous(seen);
        assert.equal(seen.filter(({ kind }) => kind === "gap").length, 1, transport);
        await client.close();
        assert.equal((await client.state()).state, "closed");
      }
      watch.clean(...NETWORK_COMPLAINTS);
    } finally {
      await close();
    }
  });

  test(`in ${name}, what the documents say to paste`, async (context) => {
    const opened = await open();
    if (!opened) return context.skip(`${name} is not installed`);
    const { page, watch, close } = opened;
    try {
      const text = readFileSync(new URL("docs/client.md", ROOT), "utf8");
      const body = /```html\n(<!doctype html>[^]*?)```/.exec(text)?.[1];
      assert.ok(body, "docs/client.md has a page to paste");
      proxy.pages.set("/pasted", { type: "text/html", body });
      await page.goto(`${proxy.url}/pasted`);
      const log = () => page.evaluate(() => document.getElementById("log")?.textContent ?? "");
      await eventually("it is open", async () => (await log()).includes("connection: open"));
      upstream.push("door/state", `<b>${push()}</b>`);
      await eventually("the event", async () => (await log()).includes(`door/state <b>${count}</b>`));
      watch.clean();
    } finally {
      await close();
    }
  });
}

test("in Firefox, tabs share one connection and hand it over", async (context) => {
  const browser = await firefox();
  if (!browser) return context.skip("Firefox is not installed");
  try {
    const tabs = [];
    for (let count = 0; count < 3; count += 1) {
      const { page } = await openFirefoxPage(browser);
      tabs.push({ page, client: await Client.open(page, proxy.url, { since: "earliest" }) });
      await tabs[count].client.opened();
    }
    const roles = await Promise.all(tabs.map(async ({ client }) => (await client.state()).shared));
    assert.deepEqual(roles, ["leader", "follower", "follower"]);
    for (const { client } of tabs) await client.saw(push());
    await tabs[0].page.close();
    await eventually("the next one leads", async () => (await tabs[1].client.state()).shared === "leader");
    for (const { client } of tabs.slice(1)) {
      await client.saw(push());
      assertContiguous(await client.seen());
    }
  } finally {
    await browser.close();
  }
});

test("the broker serves it as it is in the folder", async () => {
  const response = await fetch(`${broker.url}/fanlight.js`);
  assert.equal(response.headers.get("content-type"), "text/javascript; charset=utf-8");
  assert.deepEqual(Buffer.from(await response.arrayBuffer()), CLIENT);
});

for (const [name, open] of Object.entries(BROWSERS)) {
  test(`in ${name}, the policy of the broker's own page allows each transport`, async (context) => {
    const opened = await open();
    if (!opened) return context.skip(`${name} is not installed`);
    try {
      await opened.page.goto(`${broker.url}/`);
      const client = new Client(opened.page);
      for (const transport of /** @type {const} */ (["sse", "websocket", "poll"])) {
        await client.connect({ transports: [transport], share: false });
        await client.opened(transport);
        await client.saw(push());
        await client.close();
      }
    } finally {
      await opened.close();
    }
  });
}

test("under a path of a proxy, with a base that is relative or whole", async () => {
  const browser = await chromium();
  try {
    const { page, watch } = await openPage(browser);
    await page.goto(`${proxy.url}/page`);
    for (const base of ["/sub/path", "sub/path/", `${proxy.url}/sub/path/?x#y`]) {
      const path = await page.evaluate(async (base) => {
        // @ts-ignore: the page's address, not a file's
        const { connect } = await import("/fanlight.js");
        return new Promise((resolve) => {
          const { EventSource } = globalThis;
          globalThis.EventSource = class extends EventSource {
            /** @param {string | URL} url */
            constructor(url) {
              super(url);
              resolve(`${url}`);
              connection.close();
              globalThis.EventSource = EventSource;
            }
          };
          const connection = connect(base, { share: false });
        });
      }, base);
      assert.equal(path, `${proxy.url}/sub/path/events`);
    }
    watch.clean(...NETWORK_COMPLAINTS);
  } finally {
    await browser.close();
  }
});

test("a page that comes back from the back/forward cache goes on where it was", async () => {
  const browser = await chromium({ ignoreDefaultArgs: ["--disable-back-forward-cache"] });
  try {
    const { page, watch } = await openPage(browser);
    const client = await Client.open(page, proxy.url, { since: "earliest" });
    await client.saw(push());
    await page.evaluate(() => window.addEventListener("pageshow", ({ persisted }) => {
      /** @type {any} */ (globalThis).persisted = persisted;
    }));
    proxy.pages.set("/other", { type: "text/html", body: "<!doctype html><link rel=icon href=data:,><title>other</title>" });
    await page.goto(`${proxy.url}/other`);
    const missed = push();
    await page.goBack({ waitUntil: "commit" });
    await eventually("the cache was used", () => page.evaluate(() => /** @type {any} */ (globalThis).persisted));
    await client.saw(missed);
    await client.saw(push());
    assertContiguous(await client.seen());
    watch.clean();
  } finally {
    await browser.close();
  }
});

test("a frozen tab lets go, and goes on where it was", async () => {
  const browser = await chromium();
  try {
    const { page, watch } = await openPage(browser);
    const client = await Client.open(page, proxy.url, { since: "earliest" });
    await client.saw(push());
    const { connections } = proxy;
    // As Chromium tells it; a page that is seen cannot be frozen for a test.
    await page.evaluate(() => void document.dispatchEvent(new Event("freeze")));
    await eventually("it lets go", () => proxy.connections < connections);
    const missed = push();
    await page.evaluate(() => void document.dispatchEvent(new Event("resume")));
    await client.saw(missed);
    assertContiguous(await client.seen());
    watch.clean();
  } finally {
    await browser.close();
  }
});
