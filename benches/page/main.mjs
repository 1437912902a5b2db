// The dashboard's live list under a steady rate of events, in Chromium.
//
// Counted are the frames the browser draws, the time of each frame's script (taking the new
// events in and updating the list), and what the page holds in memory after a collection.

import { Broker } from "../../tests/browser/support/broker.mjs";
import { chromium } from "../../tests/browser/support/browser.mjs";

const SAMPLE_MS = 15_000;

const [seconds = 60, rate = 1000] = process.argv.slice(2).map(Number);
if (!(seconds > 0 && rate > 0)) {
  console.error("usage: benches/page/run [SECONDS] [EVENTS_PER_SECOND]");
  process.exit(2);
}

const broker = await Broker.demo([`--demo-events-per-second=${rate}`]);
const browser = await chromium();
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  await page.addInitScript(countFrames);
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Performance.enable");
  await page.goto(broker.url);
  await page.locator("#stream-chip", { hasText: "receiving" }).waitFor();
  await page.locator(".list-body > .row").first().waitFor();
  const began = performance.now();
  await page.evaluate(() => window.frames_.reset());
  const memory = [];
  while (performance.now() - began < seconds * 1000) {
    const left = seconds * 1000 - (performance.now() - began);
    await new Promise((resolve) => setTimeout(resolve, Math.min(SAMPLE_MS, left)));
    await cdp.send("HeapProfiler.collectGarbage");
    const { metrics } = await cdp.send("Performance.getMetrics");
    const value = (/** @type {string} */ name) => metrics.find((metric) => metric.name === name)?.value ?? 0;
    const sample = {
      second: Math.round((performance.now() - began) / 1000),
      heap_mib: Math.round(value("JSHeapUsedSize") / 2 ** 20 * 10) / 10,
      nodes: value("Nodes"),
      listeners: value("JSEventListeners"),
      rows: await page.locator(".shown-count").textContent(),
    };
    memory.push(sample);
    console.log(JSON.stringify(sample));
  }
  const took = (performance.now() - began) / 1000;
  const { frames, updates } = await page.evaluate(() => window.frames_.read());
  updates.sort((a, b) => a - b);
  const at = (/** @type {number} */ part) => Math.round((updates[Math.min(updates.length - 1, Math.floor(updates.length * part))] ?? 0) * 100) / 100;
  console.log(JSON.stringify({
    seconds: Math.round(took), events_per_second: rate, frames_per_second: Math.round(frames / took * 10) / 10,
    update_ms: { median: at(0.5), p99: at(0.99), most: at(1) }, updates: updates.length,
  }, null, 2));
} finally {
  await browser.close();
  await broker.stop();
}

/** Runs in the page, before its own scripts. */
function countFrames() {
  const UPDATES_MAX = 1_000_000;
  let frames = 0;
  /** @type {number[]} */
  let updates = [];
  const real = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (run) => real((time) => {
    const began = performance.now();
    run(time);
    if (updates.length < UPDATES_MAX) updates.push(performance.now() - began);
  });
  const count = () => {
    frames += 1;
    real(count);
  };
  real(count);
  window.frames_ = {
    reset() {
      frames = 0;
      updates = [];
    },
    read: () => ({ frames, updates }),
  };
}
