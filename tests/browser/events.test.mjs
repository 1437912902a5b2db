// The live list as a reader sees and uses it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Broker } from "./support/broker.mjs";
import { chromium, firefox, NETWORK_COMPLAINTS, openFirefoxPage, openPage } from "./support/browser.mjs";
import { Upstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

/** @typedef {import("./support/browser.mjs").Page} Page */

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

/**
 * The dashboard at an address, receiving.
 * @param {string} [hash]
 * @param {Parameters<typeof browser.newContext>[0]} [options]
 */
async function open(hash = "", options) {
  const { page, watch } = await openPage(await browser.newContext(options));
  await page.goto(`${broker.url}/${hash}`);
  await page.locator("#stream-chip", { hasText: "receiving" }).waitFor();
  return { page, watch };
}

/**
 * The rows on the screen from the top: name and data.
 * @param {Page} page
 * @returns {Promise<string[]>}
 */
const rows = (page) => page.locator(".list-body > .row").evaluateAll((elements) =>
  elements
    .map((element) => ({ top: element.getBoundingClientRect().top, text: `${element.children[0].textContent} ${element.children[1].textContent}` }))
    .sort((a, b) => a.top - b.top)
    .map(({ text }) => text));

/** @param {Page} page @param {string} text the newest row */
const tops = (page, text) => eventually(`${text} is on top`, async () => (await rows(page))[0] === text);

test("an event is on the screen, and the past before it", async () => {
  upstream.push("past/one", "1");
  await eventually("the broker has it", async () => (await broker.json("/last")).length > 0);
  const { page, watch } = await open();
  await tops(page, "past/one 1");
  upstream.push("live/one", "2");
  await tops(page, "live/one 2");
  assert.deepEqual((await rows(page)).slice(0, 2), ["live/one 2", "past/one 1"]);
  const delay = (/** @type {string} */ name) => page.locator(".list-body > .row", { hasText: name }).locator(".delay").textContent();
  assert.match((await delay("live/one")) ?? "", /^\d+ ms$/, "the delay of the live one is known");
  assert.equal(await delay("past/one"), "–");
  watch.clean();
  await page.context().close();
});

test("a filter is applied to past and present, and stands in the address", async () => {
  for (let t = 20; t < 40; t += 1) upstream.push(t % 2 ? "temp/a" : "temp/b", JSON.stringify({ t }));
  const { page, watch } = await open(`#/events?q=${encodeURIComponent("name:temp/a data.t>30")}`);
  await tops(page, 'temp/a {"t":39}');
  assert.equal((await rows(page)).length, 5);
  upstream.push("temp/a", JSON.stringify({ t: 29 }));
  upstream.push("temp/b", JSON.stringify({ t: 41 }));
  upstream.push("temp/a", JSON.stringify({ t: 41 }));
  await tops(page, 'temp/a {"t":41}');
  assert.equal((await rows(page)).length, 6);
  await page.keyboard.press("/");
  await page.keyboard.type("name:temp/b");
  await tops(page, 'temp/b {"t":41}');
  await eventually("the address has it", () => decodeURIComponent(page.url()).includes("q=name:temp/b"));
  await page.keyboard.press("Escape");
  await page.reload();
  await tops(page, 'temp/b {"t":41}');
  await page.locator("#filter").fill("data.t>warm");
  await page.locator("#filter-problems", { hasText: "warm is no number" }).waitFor();
  watch.clean();
  await page.context().close();
});

test("a pause cannot be overlooked, and receives on", async () => {
  const { page, watch } = await open("#/events?q=name:pause");
  upstream.push("pause", "before");
  await tops(page, "pause before");
  await page.keyboard.press(" ");
  await page.locator(".paused", { hasText: "0 new" }).waitFor();
  for (let i = 1; i <= 25; i += 1) upstream.push("pause", String(i));
  await page.locator(".paused", { hasText: "Paused · 25 new" }).waitFor();
  assert.match(await page.title(), /⏸ 25 new/);
  assert.equal((await rows(page))[0], "pause before");
  await page.keyboard.press(" ");
  await tops(page, "pause 25");
  assert.equal(await page.locator(".paused").isVisible(), false);
  await page.locator(".shown-count", { hasText: /^26 of / }).waitFor();
  watch.clean();
  await page.context().close();
});

test("a filter does not end a pause", async () => {
  const { page, watch } = await open("#/events?q=name:hold/*");
  upstream.push("hold/a", "before");
  await tops(page, "hold/a before");
  await page.keyboard.press(" ");
  upstream.push("hold/a", "1");
  await page.locator(".paused", { hasText: "Paused · 1 new" }).waitFor();
  await page.locator("#filter").fill("name:hold/a");
  await eventually("the address has it", () => decodeURIComponent(page.url()).includes("q=name:hold/a"));
  for (const data of ["2", "3"]) upstream.push("hold/a", data);
  await page.locator(".paused", { hasText: "Paused · 3 new" }).waitFor();
  assert.equal((await rows(page))[0], "hold/a before");
  await page.locator(".paused").click();
  await tops(page, "hold/a 3");
  watch.clean();
  await page.context().close();
});

test("rows stay under the pointer, under a choice, and where they were scrolled to", async () => {
  const { page, watch } = await open("#/events?q=name:still");
  for (let i = 0; i < 200; i += 1) upstream.push("still", String(i));
  await tops(page, "still 199");
  const list = page.locator(".list");
  await list.hover({ position: { x: 200, y: 200 } });
  upstream.push("still", "pointed");
  await page.locator(".waits", { hasText: "1 new" }).waitFor();
  assert.equal((await rows(page))[0], "still 199");
  await page.mouse.move(5, 5);
  await tops(page, "still pointed");

  await list.evaluate((element) => { element.scrollTop = 1000; });
  const seen = await eventually("it is scrolled", async () => {
    const now = await rows(page);
    return now[0] !== "still pointed" && now;
  });
  upstream.push("still", "scrolled");
  await page.locator(".waits", { hasText: "1 new" }).waitFor();
  assert.deepEqual(await rows(page), seen);
  await page.locator(".waits").click();
  await tops(page, "still scrolled");

  await page.mouse.move(5, 5);
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  const chosen = page.locator('.row[aria-selected="true"]');
  assert.match((await chosen.textContent()) ?? "", /pointed/);
  upstream.push("still", "chosen");
  await page.locator(".waits", { hasText: "1 new" }).waitFor();
  assert.match((await chosen.textContent()) ?? "", /pointed/);
  await page.keyboard.press("Escape");
  await tops(page, "still chosen");
  watch.clean();
  await page.context().close();
});

test("the details of a row, by keyboard", async () => {
  const { page, watch } = await open("#/events?q=name:detail");
  const data = JSON.stringify({ t: 21.5, deep: { list: [1, "two"] } });
  upstream.push("detail", data, "e00fce680000000000000001");
  await tops(page, `detail ${data}`);
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  const drawer = page.locator(".drawer");
  await drawer.waitFor();
  assert.match((await drawer.textContent()) ?? "", /e00fce680000000000000001/);
  assert.equal(await drawer.locator("a.number").count(), 2, "every number leads to its plot");
  await drawer.getByRole("button", { name: "Raw" }).click();
  assert.equal(await drawer.locator("pre").textContent(), data);
  await drawer.getByRole("button", { name: "Bytes" }).click();
  assert.match((await drawer.locator("pre").textContent()) ?? "", /^0000 {2}7b 22 74 22/);
  const link = page.url();
  assert.match(link, /id=[0-9a-z]{8}-\d+/);
  await page.keyboard.press("Escape");
  assert.equal(await drawer.isVisible(), false);
  await page.goto("about:blank");
  await page.goto(link);
  await drawer.waitFor();
  assert.match((await drawer.textContent()) ?? "", /e00fce680000000000000001/, "the link leads back to it");
  watch.clean();
  await page.context().close();
});

test("copy as curl gets the same event again", async () => {
  const { page } = await open("#/events?q=name:curl*", { permissions: ["clipboard-read", "clipboard-write"] });
  upstream.push("curl it's", "one");
  await tops(page, "curl it's one");
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Copy as curl" }).click();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  const { execFile } = await import("node:child_process");
  const answer = await new Promise((resolve, reject) =>
    execFile("sh", ["-c", `${command} -s`], (error, out) => (error ? reject(error) : resolve(out))));
  const { events } = JSON.parse(String(answer));
  assert.deepEqual(events.map((/** @type {any} */ event) => [event.name, event.data]), [["curl it's", "one"]]);
  await page.context().close();
});

test("what is missing stands in its place", async () => {
  const { page, watch } = await open();
  upstream.push("hole/before", "1");
  await tops(page, "hole/before 1");
  const opens = upstream.opens;
  upstream.drop();
  await eventually("the broker is back", () => upstream.opens > opens && upstream.connections === 1);
  await page.locator('.row[data-kind="hole"]', { hasText: "what devices published then is lost" }).waitFor();
  upstream.push("hole/after", "2");
  await tops(page, "hole/after 2");
  await broker.kill();
  await page.locator("#stream-chip", { hasText: /connecting/ }).waitFor();
  await broker.start();
  await page.locator('.row[data-kind="gap"]', { hasText: "the broker started anew" }).waitFor();
  await broker.live();
  upstream.push("hole/new", "3");
  await tops(page, "hole/new 3");
  watch.clean(...NETWORK_COMPLAINTS);
  await page.context().close();
});

test("nothing flows yet: the page says what is there and what is missing", async () => {
  const quiet = new Broker(["serve", "--upstream-source=sse", "--upstream-url=http://127.0.0.1:9/none"]);
  await quiet.start();
  try {
    const { page } = await openPage(browser);
    await page.goto(quiet.url);
    await page.getByText(/curl -N/).first().waitFor();
    await page.close();
  } finally {
    await quiet.stop();
  }
});

test("every view works in Firefox", async (context) => {
  const other = await firefox();
  if (!other) return context.skip("Firefox is not installed");
  try {
    const { page, watch } = await openFirefoxPage(other);
    await page.goto(broker.url);
    upstream.push("fox", JSON.stringify({ t: 1 }));
    await eventually("the event is on the screen", () =>
      page.evaluate(() => [...document.querySelectorAll(".list-body > .row .name")].some(({ textContent }) => textContent === "fox")));
    for (const view of ["plots", "devices", "upstream", "subscribers", "try", "events"]) {
      await page.evaluate((view) => { location.hash = `#/${view}`; }, view);
      await eventually(`${view} is shown`, () => page.evaluate((view) =>
        document.querySelector(`#nav-${view}[aria-current]`) && (document.querySelector("main")?.textContent ?? "").length > 40, view));
    }
    watch.clean();
  } finally {
    await other.close();
  }
});

test("what is published in the page comes back to it, and a refusal is told in the broker's words", async () => {
  const demo = await Broker.demo();
  try {
    const { page, watch } = await openPage(browser);
    await page.goto(`${demo.url}/#/try`);
    await page.getByLabel("Name", { exact: true }).fill("from/the page");
    await page.getByLabel("Data", { exact: true }).fill("21.5");
    await page.getByRole("button", { name: "Publish" }).click();
    await page.locator(".publish-answer", { hasText: "name" }).waitFor();
    await page.getByLabel("Name", { exact: true }).fill("from/the/page");
    await page.getByRole("button", { name: "Publish" }).click();
    await page.locator(".publish-answer", { hasText: "Published." }).waitFor();
    await page.goto(`${demo.url}/#/events?q=name:from/the/page`);
    await tops(page, "from/the/page 21.5");
    watch.clean(/Failed to load resource.*400/);
    await page.close();
  } finally {
    await demo.stop();
  }
});
