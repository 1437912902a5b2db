// The frame of the page: its address, its links, and what lies around the views.

import assert from "node:assert/strict";
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
