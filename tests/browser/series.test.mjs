// What is plotted, without a page: sources in addresses, lines, windows, breaks.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Breaks, cuts } from "../../web/app/plots/breaks.js";
import { bounds, summary, table, thin } from "../../web/app/plots/curve.js";
import { Lately } from "../../web/app/plots/lately.js";
import { DEVICES_MAX, Line, Series, choose, plotLink, sourceOf, sourceText } from "../../web/app/plots/series.js";
import { Random } from "./support/random.mjs";

let n = 0;
/**
 * A row as the store has it.
 * @returns {import("../../web/app/data/store.js").Row}
 */
const row = (name, data, { device = "d1", at = n * 1000, kind = "event", received = NaN, event = {} } = {}) =>
  ({ n: n++, kind: /** @type {any} */ (kind), id: "", name, data, device, published: at, received, event });

const series = (path, device = "") => new Series({ name: "temp", path, device });
const points = (line) => Array.from({ length: line.size }, (_, i) => [line.time(line.start + i), line.value(line.start + i)]);

test("a source survives the address, whatever it is called", () => {
  const random = new Random();
  for (let round = 0; round < 3000; round += 1) {
    const source = { name: random.text() || "x", path: Array.from({ length: round % 4 }, () => random.text()), device: random.text() };
    // The path with one empty key and the empty path are written alike.
    if (source.path.length === 1 && source.path[0] === "") source.path = [];
    const link = plotLink(source.name, source.path, source.device);
    const back = sourceOf(new URLSearchParams(link.slice(link.indexOf("?"))).get("add"));
    assert.deepEqual(back, source, `seed ${random.seed}`);
  }
  assert.equal(sourceText({ name: "a|b", path: ["t.x", "0"], device: "" }), "a\\|b|t\\\\.x.0");
  assert.deepEqual(sourceOf("greenhouse/temp"), { name: "greenhouse/temp", path: [], device: "" });
});

test("numbers, and text that is one, at the path; one line for each device", () => {
  const temps = series(["t"]);
  temps.take(row("temp", '{"t":1.5}', { at: 10 }));
  temps.take(row("temp", '{"t":"2"}', { at: 20, device: "d2" }));
  temps.take(row("temp", '{"u":3}', { at: 30 }));
  temps.take(row("temp", "none", { at: 30 }));
  temps.take(row("other", '{"t":4}', { at: 30 }));
  temps.take(row("temp", '{"t":5}', { at: NaN, received: 40 }));
  temps.take(row("temp", '{"t":6}', { at: NaN }));
  assert.deepEqual(points(temps.lines.get("d1")), [[10, 1.5], [40, 5]]);
  assert.deepEqual(points(temps.lines.get("d2")), [[20, 2]]);
  assert.equal(temps.without, 2);
  assert.equal(temps.untimed, 1);
  const alone = series(["t"], "d2");
  alone.take(row("temp", '{"t":1}', { device: "d1" }));
  assert.equal(alone.lines.size, 0);
});

test("a line is in order of time, and forgets with the rows", () => {
  const random = new Random();
  const line = new Line("d");
  const model = [];
  for (let i = 0; i < 5000; i += 1) {
    const time = i * 10 - (random.below(5) === 0 ? random.below(50) : 0);
    line.push(i, time, i);
    model.push([time, i]);
    if (random.below(100) === 0) line.forget(i - 2000);
  }
  line.forget(4000);
  model.sort((a, b) => a[0] - b[0]);
  const kept = points(line);
  assert.deepEqual(kept, model.slice(-kept.length), `seed ${random.seed}`);
  assert.ok(kept.length >= 1000 && kept.length < 1020, `seed ${random.seed}: ${kept.length}`);
  line.forget(Infinity);
  assert.equal(line.size, 0);
  assert.equal(line.near(5), -1);
});

test("devices are bounded, and those beyond are counted", () => {
  const temps = series([]);
  for (let i = 0; i < DEVICES_MAX + 7; i += 1) temps.take(row("temp", "1", { device: `d${i}` }));
  assert.equal(temps.lines.size, DEVICES_MAX);
  assert.equal(temps.unnamed, 7);
});

test("a line keeps its place until another is twice as busy", () => {
  const temps = series([]);
  const feed = (device, count) => { for (let i = 0; i < count; i += 1) temps.take(row("temp", "1", { device, at: 50 })); };
  feed("a", 20), feed("b", 10), feed("c", 5);
  let chosen = choose(temps, [null, null], 0, 100);
  assert.deepEqual(chosen, { places: ["a", "b"], left: ["c"] });
  feed("c", 10);
  chosen = choose(temps, chosen.places, 0, 100);
  assert.deepEqual(chosen.places, ["a", "b"]);
  feed("c", 20);
  chosen = choose(temps, chosen.places, 0, 100);
  assert.deepEqual(chosen, { places: ["a", "c"], left: ["b"] });
  assert.deepEqual(choose(temps, chosen.places, 200, 300), { places: [null, null], left: [] });
});

test("thinned, a line keeps its first, lowest, highest and last point of each column", () => {
  const random = new Random();
  const line = new Line("d");
  const all = [];
  for (let i = 0; i < 100_000; i += 1) {
    const value = random.below(1_000_000);
    line.push(i, i * 10, value);
    all.push(value);
  }
  const columns = 500;
  const curve = thin(line, 100_000, 900_000, columns);
  assert.ok(curve.times.length <= columns * 4 + 2);
  assert.ok(curve.times.every((time, i) => i === 0 || time > curve.times[i - 1]), `seed ${random.seed}`);
  const inside = all.slice(10_000, 90_001);
  const drawn = curve.values.slice(1, -1);
  assert.equal(Math.max(...drawn), inside.reduce((a, b) => Math.max(a, b)), `seed ${random.seed}`);
  assert.equal(Math.min(...drawn), inside.reduce((a, b) => Math.min(a, b)), `seed ${random.seed}`);
  assert.deepEqual([curve.times[0], curve.times[1]], [99_990, 100_000]);
  assert.deepEqual(curve.times.slice(-2), [900_000, 900_010]);
  const { count, min, max, mean, newest } = summary(line, 100_000, 900_000);
  assert.deepEqual([count, min, max, newest], [80_001, Math.min(...drawn), Math.max(...drawn), all.at(-1)]);
  assert.ok(Math.abs(mean - inside.reduce((a, b) => a + b) / inside.length) < 1e-3);
});

test("curves share one axis; a break is drawn through by none", () => {
  const a = { times: [0, 10, 20], values: [1, 2, 3] };
  const b = { times: [10, 30], values: [5, 6] };
  assert.deepEqual(table([a, null, b], [15, 99]), [
    [0, 10, 15, 20, 30],
    [1, 2, null, 3, undefined],
    [undefined, undefined, null, undefined, undefined],
    [undefined, 5, null, undefined, 6],
  ]);
  assert.deepEqual(table([], [5]), [[]]);
  assert.deepEqual(table([{ times: [5, 5], values: [1, 2] }], [5]), [[5], [2]]);
});

test("the vertical axis holds what is in the window, and lines that come in from outside", () => {
  const [low, high] = bounds([{ times: [0, 100, 200], values: [0, 10, 20] }], 50, 150);
  assert.ok(low < 5 && low > 3 && high > 15 && high < 17, `${low} ${high}`);
  assert.deepEqual(bounds([null], 0, 1), [0, 1]);
  const [flat, above] = bounds([{ times: [5], values: [7] }], 0, 10);
  assert.ok(flat < 7 && above > 7);
  assert.ok(bounds([{ times: [5, 6], values: [-1.7e308, 1.7e308] }], 0, 10).every(Number.isFinite));
});

test("a hole has its times; a gap lies between the events around it", () => {
  const breaks = new Breaks();
  breaks.take(row("gap: evicted", "before all", { kind: "gap" }));
  breaks.take(row("x", "1", { at: 1000 }));
  breaks.take(row("hole", "h", { kind: "hole", event: { since: "1970-01-01T00:00:02Z", until: "1970-01-01T00:00:03Z" } }));
  breaks.take(row("gap: overtaken", "g", { kind: "gap" }));
  assert.deepEqual(breaks.between(0, 9000).map(({ from, to }) => [from, to]), [[-Infinity, 1000], [2000, 3000], [1000, Infinity]]);
  const last = row("x", "1", { at: 5000 });
  breaks.take(last);
  const found = breaks.between(0, 9000);
  assert.deepEqual(found.map(({ kind, from, to }) => [kind, from, to]), [["gap", -Infinity, 1000], ["hole", 2000, 3000], ["gap", 1000, 5000]]);
  assert.deepEqual(cuts(found), [2500, 3000]);
  assert.equal(breaks.between(6000, 9000).length, 0);
  breaks.forget(last.n);
  assert.equal(breaks.between(0, 9000).length, 0);
});

test("numbers seen lately: each once with its newest value, bounded", () => {
  const lately = new Lately();
  lately.take(row("battery", '{"v":4.1,"soc":86}'));
  lately.take(row("battery", '{"v":4.0,"soc":85}', { device: "d2" }));
  lately.take(row("door", "open"));
  assert.deepEqual(lately.find("").map(({ key, value }) => [key, value]), [["battery|soc", 85], ["battery|v", 4]]);
  assert.deepEqual(lately.find("BATT soc").map(({ key }) => key), ["battery|soc"]);
  for (let i = 0; i < 2000; i += 1) lately.take(row(`name-${i}`, "1"));
  assert.equal(lately.find("").length, 400);
  assert.equal(lately.find("name-1999").length, 1);
});
