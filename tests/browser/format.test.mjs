// Numbers and times as people read them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { rateOf } from "../../web/app/data/status.js";
import { ago, duration, percent, rate, second, time } from "../../web/app/page/format.js";

test("midnight begins a day", () => {
  const midnight = new Date(2026, 10, 22, 0, 5, 7).getTime();
  assert.match(time(midnight), /^00.05.07/);
  assert.match(second(midnight), /^00.05.07$/);
});

test("what is rare is no zero", () => {
  assert.deepEqual([0, 250, 1.25, 0.5, 1 / 1800, 1 / 86_400, NaN].map(rate), ["0/s", "250/s", "1.3/s", "30/min", "2/h", "0.042/h", "–"]);
});

test("times ahead and times unknown are said", () => {
  assert.deepEqual([0, 1400, -1400, 90_000, -3_600_000, NaN].map(ago), ["now", "now", "now", "1 min 30 s ago", "in 1 h", "–"]);
  assert.deepEqual([999.4, 999.7, 9_949, 9_950, 59_700, NaN].map(duration), ["999 ms", "1.0 s", "9.9 s", "10 s", "1 min", "–"]);
});

test("parts of a whole are plain numbers", () => {
  assert.deepEqual([1, 0.9999, 0.123, 0.005, 1e-6, 0].map(percent), ["100 %", "100 %", "12.3 %", "0.5 %", "less than 0.01 %", "0 %"]);
});

test("a rate is none across a restart, however long the new process has run", () => {
  const report = (/** @type {any} */ before, /** @type {any} */ now) => ({ before, now, at: 0, seconds: 10, error: "" });
  const status = (/** @type {string} */ epoch, /** @type {number} */ uptime, /** @type {number} */ n) => ({ uptime_seconds: uptime, ring: { epoch }, n });
  const of = (/** @type {any} */ one) => one.n;
  assert.equal(rateOf(report(status("a", 5, 10), status("a", 15, 30)), of), 2);
  assert.equal(rateOf(report(status("a", 5, 10), status("b", 9, 30)), of), NaN);
  assert.equal(rateOf(report(status("a", 5, 10), status("b", 2, 30)), of), NaN);
  assert.equal(rateOf(report(null, status("a", 5, 10)), of), NaN);
});
