// The frame of the page: its address, its links, and what lies around the views.

import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { after, before, test } from "node:test";

import { Broker } from "./support/broker.mjs";
import { chromium, openPage } from "./support/browser.mjs";
import { Upstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

/** @type {Upstream} */
let upstream;
/** @type {Broker} */
let broker;
/** @type {import("./support/browser.mjs").Browser} */
let browser;

before(async () => {
  upstream = await Upstream.listen();
  broker = await Broker.serve(upstream, ["--upstream-stale-after=30s"]);
  browser = await chromium();
});
after(async () => {
  await browser?.close();
  upstream?.close();
  await broker?.stop();
});

/** The dashboard at an address, receiving. @param {string} [hash] */
async function open(hash = "") {
  const { page, watch } = await openPage(await browser.newContext());
  await page.goto(`${broker.url}/${hash}`);
  await page.locator("#stream-chip", { hasText: "receiving" }).waitFor();
  return { page, watch };
}

test("Escape leaves the filter as it is", async () => {
  upstream.push("kept", "1");
  const { page, watch } = await open("#/events?q=name:kept");
  await page.locator(".list").waitFor();
  await page.keyboard.press("/");
  await page.keyboard.press("Escape");
  await eventually("the list has the focus", () => page.evaluate(() => document.activeElement?.classList.contains("list")));
  assert.equal(await page.locator("#filter").inputValue(), "name:kept");
  assert.match(decodeURIComponent(page.url()), /q=name:kept$/);
  watch.clean();
  await page.context().close();
});

test("much enlarged, a paused list is still there, and Space scrolls a text that has the focus", async () => {
  upstream.push("tall", JSON.stringify(Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`key-${i}`, i]))));
  const { page, watch } = await open("#/events?q=name:tall");
  await page.setViewportSize({ width: 320, height: 256 });
  await page.locator(".list").waitFor();
  await page.keyboard.press(" ");
  await page.locator(".paused").waitFor();
  assert.ok(await page.locator(".list").evaluate((list) => list.clientHeight > 100));
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Raw" }).click();
  await page.locator(".drawer pre").focus();
  await page.keyboard.press(" ");
  await eventually("it scrolls", () => page.locator(".drawer pre").evaluate((text) => text.scrollTop > 0));
  assert.ok(await page.locator(".paused").isVisible(), "it did not go on");
  watch.clean();
  await page.context().close();
});

test("one can zoom out as often as one likes, and back", async () => {
  upstream.push("zoomed", "1");
  const { page, watch } = await open("#/plots?s=zoomed");
  await page.locator("canvas").first().waitFor();
  const out = page.getByRole("button", { name: "Zoom out" });
  for (let i = 0; i < 45; i += 1) await out.click();
  await page.getByRole("button", { name: "Reset zoom" }).click();
  await page.locator(".plot-table td", { hasText: /^1$/ }).first().waitFor();
  watch.clean();
  await page.context().close();
});

test("a page of which a part does not come through says so", async () => {
  const { page } = await openPage(await browser.newContext());
  await page.route("**/app/data/store.js", (route) => route.abort());
  await page.goto(broker.url);
  await page.getByText("reload it").waitFor();
  await page.context().close();
});

test("the link past the header stays in the view", async () => {
  const { page, watch } = await open("#/devices?state=silent");
  await page.locator(".skip").focus();
  await page.keyboard.press("Enter");
  await eventually("the content has the focus", () => page.evaluate(() => document.activeElement?.id === "main"));
  assert.match(page.url(), /#\/devices\?state=silent$/);
  assert.equal(await page.title(), "Devices · Fanlight");
  watch.clean();
  await page.context().close();
});

test("a link to an event shows that event, whatever was shown before", async () => {
  for (const data of ["one", "two"]) upstream.push("linked", data);
  const { page, watch } = await open("#/events?q=name:linked");
  const drawer = page.locator(".drawer");
  /** @type {string[]} */
  const links = [];
  for (const data of ["two", "one"]) {
    await page.locator(".list-body > .row", { hasText: data }).waitFor();
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await drawer.locator(".payload", { hasText: data }).waitFor();
    await eventually("the address has it", () => page.url().includes("id=") && !links.includes(page.url()));
    links.push(page.url());
  }
  await page.goto(links[0]);
  await drawer.locator(".payload", { hasText: "two" }).waitFor();
  await page.evaluate(() => { location.hash = "#/events?q=name:linked"; });
  await eventually("the drawer is closed", () => drawer.isHidden());
  await page.evaluate(() => { location.hash = "#/events?id=none"; });
  await page.getByText("no longer in the broker's memory").first().waitFor();
  watch.clean();
  await page.context().close();
});

test("under a path of a proxy nothing outside of it is asked for, and what can be copied has it", async () => {
  const quiet = new Broker(["serve", "--upstream-source=sse", "--upstream-url=http://127.0.0.1:9/none"]);
  await quiet.start();
  /** @type {string[]} */
  const outside = [];
  const under = "/fan/light/";
  const proxy = createServer((asked, answer) => {
    const { method, headers, url = "" } = asked;
    if (!url.startsWith(under)) {
      outside.push(url);
      answer.writeHead(404).end();
      return;
    }
    const passed = request({ host: "127.0.0.1", port: quiet.port, method, headers, path: url.slice(under.length - 1), agent: false });
    passed.on("response", (from) => from.pipe(answer.writeHead(from.statusCode ?? 0, from.headers)));
    passed.on("error", () => answer.destroy());
    answer.on("close", () => passed.destroy());
    asked.pipe(passed);
  });
  await new Promise((listens) => proxy.listen(0, "127.0.0.1", () => listens(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (proxy.address());
  const { page, watch } = await openPage(browser);
  try {
    const base = `http://127.0.0.1:${port}${under}`;
    await page.goto(base);
    await page.locator("#stream-chip", { hasText: "receiving" }).waitFor();
    await page.getByText(`curl -N ${base}events`).waitFor();
    for (const view of ["plots", "devices", "upstream", "subscribers", "try"]) {
      await page.locator(`#nav-${view}`).click();
      await page.locator(`#nav-${view}[aria-current]`).waitFor();
    }
    await page.getByText(`${base}events`).first().waitFor();
    assert.ok(page.url().startsWith(`${base}#/try`));
    assert.deepEqual(outside, []);
    watch.clean();
  } finally {
    await page.close();
    proxy.closeAllConnections();
    proxy.close();
    await quiet.stop();
  }
});

test("the address follows a key held down, without a change for each", async () => {
  for (let i = 0; i < 150; i += 1) upstream.push("held", String(i));
  const { page, watch } = await open("#/events?q=name:held");
  await page.locator(".shown-count", { hasText: /^150 of/ }).waitFor();
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  const changes = await page.evaluate(async () => {
    const replace = history.replaceState.bind(history);
    let changes = 0;
    history.replaceState = (...all) => {
      changes += 1;
      replace(...all);
    };
    const press = () => document.querySelector(".list")?.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
    for (let i = 0; i < 120; i += 1) press();
    return changes;
  });
  assert.ok(changes <= 1, String(changes));
  const id = await page.locator(".drawer-facts").evaluate((facts) => /[0-9a-z]{8}-\d+/.exec(facts.textContent ?? "")?.[0]);
  await eventually("the address has the last one", () => page.url().endsWith(`id=${id}`));
  watch.clean();
  await page.context().close();
});

// Last: every page that leads from then on complains of what it cannot pass on.
test("data nested deeply, and long lists, are shown as far as that goes", async () => {
  const { page, watch } = await open("#/events?q=name:odd/*");
  const deep = 50_000;
  upstream.push("odd/text", "[".repeat(deep) + "]".repeat(deep));
  upstream.pushRaw("odd/object", `{"data":${"[".repeat(deep)}${"]".repeat(deep)},"coreid":7}`);
  upstream.push("odd/list", JSON.stringify(new Array(60_000).fill(1)));
  upstream.pushRaw("odd/null", '{"data":null,"published_at":"never"}');
  for (const name of ["odd/null", "odd/list", "odd/object", "odd/text"]) {
    await page.locator(".list-body > .row", { hasText: name }).waitFor();
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await page.locator(".drawer h2", { hasText: name }).waitFor();
    const items = await page.locator(".drawer .tree li").count();
    assert.ok(items <= 2_001, `${name}: ${items}`);
  }
  await page.locator("#filter").fill("data=1 name:odd/*");
  await page.locator(".shown-count", { hasText: /^0 of/ }).waitFor();
  watch.clean(/BroadcastChannel/); // Other tabs get such an event by a poll.
  await page.context().close();
});
