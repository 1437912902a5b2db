// Every view, light and dark, wide and on a phone: an accessibility checker finds nothing serious,
// and nothing has to be scrolled sideways. With FANLIGHT_PICTURES=FOLDER it leaves pictures there.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";

import { Broker } from "./support/broker.mjs";
import { chromium, openPage } from "./support/browser.mjs";
import { eventually } from "./support/wait.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const pictures = process.env.FANLIGHT_PICTURES;

/** @type {Broker} */
let broker;
/** @type {import("./support/browser.mjs").Browser} */
let browser;

before(async () => {
  broker = await Broker.demo(["--demo-events-per-second=50"]);
  browser = await chromium();
  const cloud = await eventually("the cloud's address is told", () => broker.trace.find(({ message }) => message === "simulated cloud"));
  await fetch(`${cloud.url}/sim/faults`, { method: "POST", body: "cut" });
  await eventually("there is a hole to show", async () => (await broker.json("/status")).upstream.holes > 0);
  // Pictures are of a page that has seen something.
  const events = pictures ? 7_000 : 500;
  await eventually("there is something to show", async () => (await broker.json("/status")).ring.events > events, 200_000);
});
after(async () => {
  await browser?.close();
  await broker?.stop();
});

/** @typedef {import("./support/browser.mjs").Page} Page */

/** @type {Record<string, (page: Page) => Promise<unknown>>} */
const VIEWS = {
  events: (page) => page.locator(".list-body > .row").nth(5).waitFor(),
  "events-details": async (page) => {
    await page.goto(`${broker.url}/#/events?q=data.loc.lat`);
    await page.locator(".list-body > .row").nth(2).waitFor();
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await page.locator(".drawer .tree").waitFor();
  },
  "events-paused": async (page) => {
    await page.locator(".list-body > .row").nth(5).waitFor();
    await page.keyboard.press(" ");
    await page.locator(".paused").waitFor();
  },
  "events-help": async (page) => {
    await page.keyboard.press("?");
    await page.locator("dialog[open]").waitFor();
  },
  "plots-empty": (page) => page.goto(`${broker.url}/#/plots`),
  plots: async (page) => {
    const add = ["battery|v|", "soil/reading|moisture|"];
    await page.goto(`${broker.url}/#/plots?w=5m&${add.map((one) => `s=${encodeURIComponent(one)}`).join("&")}`);
    await page.locator("canvas").first().waitFor();
  },
  devices: (page) => page.goto(`${broker.url}/#/devices`),
  upstream: async (page) => {
    await page.goto(`${broker.url}/#/upstream`);
    await page.locator("main svg").first().waitFor();
  },
  subscribers: (page) => page.goto(`${broker.url}/#/subscribers`),
  try: (page) => page.goto(`${broker.url}/#/try`),
};

for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  for (const [name, width, height] of /** @type {const} */ ([["wide", 1280, 800], ["phone", 360, 740]])) {
    test(`every view, ${colorScheme}, ${name}`, async () => {
      /** @type {string[]} */
      const found = [];
      for (const [view, show] of Object.entries(VIEWS)) {
        const context = await browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion: "reduce" });
        const { page, watch } = await openPage(context);
        await page.goto(broker.url);
        await page.locator("#stream-chip", { hasText: "receiving" }).waitFor();
        await show(page);
        await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
        const sideways = await page.evaluate(() => {
          const main = /** @type {HTMLElement} */ (document.querySelector("main"));
          return Math.max(document.documentElement.scrollWidth - innerWidth, main.scrollWidth - main.clientWidth);
        });
        if (sideways > 0) found.push(`${view}: ${sideways} px wider than the screen`);
        if (pictures) await page.screenshot({ path: `${pictures}/${view}-${name}-${colorScheme}.png` });
        watch.clean();
        // The checker is put in by the browser's own hand: the page's policy takes no foreign script.
        await page.addScriptTag({ path: axe }).catch(async () => {
          const { readFile } = await import("node:fs/promises");
          await page.evaluate(await readFile(axe, "utf8"));
        });
        const { violations, passes } = await page.evaluate(() => Reflect.get(window, "axe").run(document));
        assert.ok(passes.length > 10, `${view}: the checker looked at it`);
        for (const { id, impact, nodes } of violations) {
          if (impact === "serious" || impact === "critical") {
            found.push(`${view}: ${id} (${impact}): ${nodes.slice(0, 3).map((/** @type {any} */ node) => node.html.slice(0, 200)).join(" | ")}`);
          }
        }
        await context.close();
      }
      assert.deepEqual(found, []);
    });
  }
}
