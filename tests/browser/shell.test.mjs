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
