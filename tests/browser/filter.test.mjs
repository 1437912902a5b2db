// The filter's language, and which rows it leaves.

import assert from "node:assert/strict";
import { test } from "node:test";

import { parse, quoted } from "../../web/app/events/filter.js";
import { numbers, pathOf, pathText } from "../../web/app/data/json.js";
import { Matches } from "../../web/app/events/matches.js";
import { Store } from "../../web/app/data/store.js";
import { Random } from "./support/random.mjs";

/** @typedef {import("../../web/app/data/store.js").Row} Row */

/** Frames that the store asked for, to be run by the test. @type {(() => void)[]} */
const frames = [];
// @ts-expect-error The test's own frames.
globalThis.requestAnimationFrame = (/** @type {() => void} */ run) => frames.push(run);

/** @param {Partial<Row>} part @returns {Row} */
const row = (part) => ({
  n: 0, kind: "event", id: "", name: "greenhouse/temp", data: "21.5", device: "e00fce68aa", published: 0, received: 0, event: {}, ...part,
});

/** @param {string} text @param {Partial<Row>} [part] */
const passes = (text, part = {}) => parse(text).test?.(row(part)) ?? true;

test("words are looked for in name, data and device, in any case of letters", () => {
  assert.ok(passes("TEMP"));
  assert.ok(passes("21."));
  assert.ok(passes("e00fce"));
  assert.ok(!passes("humidity"));
  assert.ok(passes("temp 21"));
  assert.ok(!passes("temp 22"));
  assert.ok(passes(""));
  assert.ok(passes("   "));
  assert.ok(passes('"door open"', { data: "the door opened" }));
  assert.ok(!passes("-temp"));
  assert.ok(passes("-humidity"));
  assert.ok(passes("-", { data: "a-b" }), "a minus alone is a word");
});

test("a name is matched whole, with stars for any text", () => {
  assert.ok(passes("name:greenhouse/temp"));
  assert.ok(!passes("name:greenhouse"));
  assert.ok(passes("name:greenhouse/*"));
  assert.ok(passes("name:*temp"));
  assert.ok(passes("name:g*h*e/t*"));
  assert.ok(!passes("name:g*x*"));
  assert.ok(!passes("name:aba*ba", { name: "aba" }), "a letter serves one part of the pattern");
  assert.ok(passes('name:"with space"', { name: "with space" }));
  assert.ok(passes("device:e00fce"), "a device by how its id begins");
  assert.ok(!passes("device:00fce"));
});

test("a pattern of many stars costs no more than its length", () => {
  const { test: run } = parse(`name:${"a*".repeat(24)}b`);
  assert.equal(run?.(row({ name: "a".repeat(200) })), false);
});

test("a path of many parts costs no more than its length", () => {
  assert.equal(passes(`data${".a".repeat(5_000)}`, { data: '{"a":1}' }), false);
  assert.equal(passes(`data${".a".repeat(5_000)}>1`, { data: '{"a":1}' }), false);
  assert.equal(passes('data."a.b"=7', { data: '{"a":{"b":7}}' }), true);
});

test("more words than are looked at are said", () => {
  assert.deepEqual(parse("e ".repeat(60)).problems, ["only the first 50 words count"]);
});

test("values in JSON data are compared", () => {
  const data = '{"t":31.5,"loc":{"lat":52.3},"s":"On","n":"12","list":[1,2],"a.b":7,"zero":0,"nothing":null}';
  for (const text of [
    "data.t>30", "data.t>=31.5", "data.t<32", "data.t<=31.5", "data.t=31.50", "data.t!=30", "data.loc.lat>52", "data.s=on",
    "data.n>11", "data.list.1=2", 'data.a\\.b=7', "data.loc", "data.zero=0", "data.nothing=null", "data:lat", "-data.x>1",
  ]) assert.ok(passes(text, { data }), text);
  for (const text of ["data.t>31.5", "data.t<31.5", "data.s>1", "data.x>0", "data.x=undefined", "data.x!=1", "data.loc.x", "data.t.x=1"]) {
    assert.ok(!passes(text, { data }), text);
  }
  assert.ok(passes("data>21", { data: "21.5" }), "data that is a number as a whole");
  assert.ok(!passes("data>21", { data: "hot" }));
  assert.ok(passes("data=open", { data: "open" }));
});

test("rows of the broker's own are chosen by their kind, and fields are the events'", () => {
  assert.ok(passes("is:hole", { kind: "hole" }));
  assert.ok(!passes("is:hole"));
  assert.ok(!passes("name:*", { kind: "hole" }));
  assert.ok(!passes("data.t>1", { kind: "gap", data: '{"t":2}' }));
});

test("what cannot be understood is said, and hides nothing", () => {
  for (const text of ["data.t>", "data.t>hot", "is:nothing"]) {
    const { test: run, problems } = parse(text);
    assert.equal(problems.length, 1, text);
    assert.ok(run?.(row({})) ?? true, text);
    assert.ok(passes(`-${text}`), `-${text}`);
  }
  assert.equal(parse("coreid:e00").problems.length, 1);
  assert.equal(parse("name:a device:b data.t>1 text").problems.length, 0);
});

test("no text makes it throw", () => {
  const random = new Random();
  const parts = ["name:", "data", ".", "t", ">", "=", "!", '"', "\\", "*", " ", "-", "is:", "(", "[", "é", "\u0000", "1", "{"];
  for (let i = 0; i < 3000; i += 1) {
    const text = Array.from({ length: random.below(9) }, () => random.pick(parts)).join("");
    try {
      parse(text).test?.(row({ data: '{"t":1}' }));
    } catch (error) {
      assert.fail(`seed ${random.seed}: ${JSON.stringify(text)}: ${error}`);
    }
  }
});

test("a quoted word is taken literally", () => {
  for (const name of ["plain", "with space", 'a"b', "back\\slash", "", "name:x"]) {
    assert.ok(passes(`name:${quoted(name)}`, { name }), name);
  }
});

test("paths survive their text form", () => {
  for (const path of [[], ["t"], ["loc", "lat"], ["a.b", "c\\d"], ["", "x"]]) {
    if (path.length !== 1 || path[0] !== "") assert.deepEqual(pathOf(pathText(path)), path);
  }
  assert.deepEqual(numbers({ a: 1, b: { c: "2.5", d: "x" }, e: [3] }), [
    { path: ["a"], value: 1 }, { path: ["b", "c"], value: 2.5 }, { path: ["e", "0"], value: 3 },
  ]);
});

/** Runs what was asked for the next frame. */
function frame() {
  for (const run of frames.splice(0)) run();
}

test("rows found looking back and rows that come are one list, newest first", () => {
  const store = new Store();
  const push = (/** @type {number} */ value) => store.push(row({ data: String(value) }));
  for (let value = 0; value < 1000; value += 1) push(value);
  const matches = new Matches(store);
  store.watch((news) => matches.take(news));
  matches.filter(parse("data=7 ").test);
  while (matches.look());
  assert.equal(matches.count(Infinity), 1);
  matches.filter((one) => Number(one.data) % 10 === 0);
  // Told only after the filter came: they must not count twice.
  frame();
  while (matches.look());
  assert.equal(matches.count(Infinity), 100);
  for (let value = 1000; value < 1100; value += 1) push(value);
  frame();
  const values = Array.from({ length: 110 }, (_, place) => store.at(matches.at(place, Infinity))?.data);
  assert.deepEqual(values, Array.from({ length: 110 }, (_, i) => String(1090 - 10 * i)));
  assert.equal(matches.at(110, Infinity), -1);

  const top = 1049;
  assert.equal(matches.count(top), 105);
  assert.equal(matches.newerThan(top), 5);
  assert.equal(store.at(matches.at(0, top))?.data, "1040");
  for (const place of [0, 4, 5, 60, 104]) assert.equal(matches.placeOf(matches.at(place, top), top), place);
  assert.equal(matches.placeOf(1090, top), -1);
  assert.equal(matches.placeOf(3, Infinity), -1);
});

test("a filter that comes while the list stands still leaves what is newer outside", () => {
  const store = new Store();
  const push = (/** @type {number} */ value) => store.push(row({ data: String(value) }));
  const matches = new Matches(store);
  store.watch((news) => matches.take(news));
  for (let value = 0; value < 1000; value += 1) push(value);
  frame();
  push(1000);
  const top = matches.newest;
  assert.equal(top, 999, "what nobody was told of is not shown yet");
  for (let value = 1001; value < 1100; value += 1) push(value);
  frame();
  matches.filter((one) => Number(one.data) % 10 === 0);
  while (matches.look());
  for (let value = 1100; value < 1200; value += 1) push(value);
  frame();
  assert.equal(matches.count(top), 100);
  assert.equal(matches.newerThan(top), 20);
  assert.equal(matches.count(Infinity), 120);
  for (const place of [0, 1, 50, 99]) {
    assert.equal(matches.at(place, top), 990 - 10 * place);
    assert.equal(matches.placeOf(990 - 10 * place, top), place);
    assert.equal(matches.placeOf(990 - 10 * place, Infinity), place + 20);
  }
  assert.equal(matches.at(100, top), -1);
  assert.equal(matches.placeOf(1000, top), -1);
});

test("the store forgets from the old end, and so do the matches", () => {
  const store = new Store();
  const matches = new Matches(store);
  store.watch((news) => matches.take(news));
  matches.filter((one) => one.n % 2 === 0);
  for (let n = 0; n < 250_000; n += 1) {
    store.push(row({ data: "x" }));
    if (n % 5000 === 0) frame();
  }
  frame();
  assert.equal(store.size, 100_000);
  assert.equal(store.first, 150_000);
  assert.equal(store.at(149_999), undefined);
  assert.equal(store.at(150_000)?.n, 150_000);
  assert.equal(matches.count(Infinity), 50_000);
  assert.equal(matches.at(49_999, Infinity), 150_000);
  store.push(row({ data: "x".repeat(60_000_000) }));
  assert.equal(store.size, 1, "bounded by characters too");
  frame();
  assert.equal(matches.count(Infinity), 1);
});
