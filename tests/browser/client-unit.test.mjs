// The client's rules without a browser: what it takes, what it drops, and when it comes back.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { gzipSync } from "node:zlib";

import { CLIENT } from "./support/client.mjs";

const BYTES_MAX = 6 * 1024;

/** An `EventSource` that the test speaks through. */
class Source extends EventTarget {
  /** @type {Source[]} */
  static all = [];
  closed = false;
  /** @type {((event: any) => void) | undefined} */
  onmessage;
  /** @type {(() => void) | undefined} */
  onerror;

  /** @param {URL} url */
  constructor(url) {
    super();
    this.url = url;
    Source.all.push(this);
  }

  close() {
    this.closed = true;
  }

  /** @param {string} lastEventId @param {object | string} data */
  event(lastEventId, data = { name: "n" }) {
    this.onmessage?.({ lastEventId, data: typeof data === "string" ? data : JSON.stringify(data) });
  }

  /** @param {string} name @param {string} lastEventId @param {object} data */
  control(name, lastEventId, data = {}) {
    this.dispatchEvent(Object.assign(new Event(`fanlight.${name}`), { lastEventId, data: JSON.stringify(data) }));
  }
}

const there = /** @type {any} */ (globalThis);
there.reportError = () => {};
Object.defineProperty(there, "navigator", { value: { onLine: true }, configurable: true });
const { connect } = await import("../../web/fanlight.js");
/** @type {any[]} */
let seen;
/** @type {import("../../web/fanlight.js").Connection | undefined} */
let connection;
/** @type {EventTarget} */
let page;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  mock.method(Math, "random", () => 1);
  page = new EventTarget();
  Object.assign(there, {
    EventSource: Source,
    location: { href: "http://broker.example/sub/page" },
    addEventListener: page.addEventListener.bind(page),
  });
  Source.all = [];
  seen = [];
});
afterEach(() => {
  connection?.close();
  connection = undefined;
  mock.timers.reset();
  mock.restoreAll();
});

/**
 * Connects over SSE alone and waits for the stream.
 * @param {import("../../web/fanlight.js").Options} [options]
 */
async function open(options = {}) {
  /** @param {string} kind */
  const note = (kind) => (/** @type {any} */ item) => void seen.push(kind === "event" ? item.id : `${kind} ${item.id}`);
  connection = connect(".", { transports: ["sse"], onEvent: note("event"), onGap: note("gap"), ...options });
  await settled();
  return stream();
}

/** Lets what is queued run. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** The newest stream. */
const stream = () => /** @type {Source} */ (Source.all.at(-1));

test("it is small", () => {
  const { length } = gzipSync(CLIENT);
  assert.ok(length <= BYTES_MAX, `${length} bytes compressed, of ${BYTES_MAX}`);
});

test("addresses are under the base, filters and start in the query", async () => {
  const { url } = await open({ prefix: ["b", "a"], name: "n", since: "5m", snapshot: true });
  assert.equal(`${url}`, "http://broker.example/sub/events?name=n&prefix=a&prefix=b&since=5m&snapshot=true");
});

test("bad options are refused with their name", () => {
  assert.throws(() => connect("/", { transports: /** @type {any} */ (["smoke"]) }), /transports must be some of sse,websocket,poll/);
  assert.throws(() => connect("/", { transports: [] }), /transports/);
  assert.throws(() => connect("http://[", {}), TypeError);
});

test("repeats are dropped", async () => {
  const source = await open();
  source.control("hello", "aaaaaaaa-7", { id: "aaaaaaaa-7" });
  for (const seq of [8, 9, 9, 8, 10]) source.event(`aaaaaaaa-${seq}`);
  assert.deepEqual(seen, ["aaaaaaaa-8", "aaaaaaaa-9", "aaaaaaaa-10"]);
});

test("a stream that broke is opened again after the position, once the wait is over", async () => {
  const source = await open({ since: "5m" });
  source.control("hello", "aaaaaaaa-7", { id: "aaaaaaaa-7" });
  source.control("checkpoint", "aaaaaaaa-9");
  source.onerror?.();
  assert.equal(connection?.state.state, "waiting");
  assert.equal(connection?.state.retryAt, Date.now() + 1000);
  assert.equal(Source.all.length, 1);
  mock.timers.tick(1000);
  await settled();
  assert.equal(Source.all.length, 2);
  assert.equal(stream().url.search, "?last_event_id=aaaaaaaa-9");
  assert.ok(source.closed);
});

test("waits double, and the broker's word goes before them", async () => {
  await open();
  /** @type {number[]} */
  const waits = [];
  for (let round = 0; round < 7; round += 1) {
    stream().onerror?.();
    waits.push(Number(connection?.state.retryAt) - Date.now());
    mock.timers.tick(waits[round]);
    await settled();
  }
  assert.deepEqual(waits, [1000, 2000, 4000, 8000, 16000, 30000, 30000]);
  stream().control("bye", "", { reason: "full", retry_ms: 16_000 });
  assert.equal(Number(connection?.state.retryAt) - Date.now(), 16_000);
  assert.equal(connection?.state.reason, "full");
  page.dispatchEvent(new Event("online"));
  assert.equal(connection?.state.state, "waiting", "it was told to wait");
});

test("old positions of a snapshot are taken, and those after it", async () => {
  const source = await open({ snapshot: true });
  source.control("hello", "aaaaaaaa-2", { id: "aaaaaaaa-2" });
  for (const seq of [3, 7]) source.event(`aaaaaaaa-${seq}`);
  source.control("checkpoint", "aaaaaaaa-20");
  source.event("aaaaaaaa-21");
  assert.deepEqual(seen, ["aaaaaaaa-3", "aaaaaaaa-7", "aaaaaaaa-21"]);
});

test("a gap breaks with an epoch, and tells so once", async () => {
  const source = await open({ lastEventId: "aaaaaaaa-500" });
  source.control("hello", "aaaaaaaa-500", { id: "aaaaaaaa-500" });
  const gap = { reason: "restart", requested: "aaaaaaaa-500", from: 1, to: 1, next: 1 };
  source.control("gap", "bbbbbbbb-0", gap);
  source.control("gap", "bbbbbbbb-0", gap);
  for (const seq of [1, 2, 2]) source.event(`bbbbbbbb-${seq}`);
  source.control("gap", "bbbbbbbb-0", gap);
  source.event("bbbbbbbb-1");
  source.event("bbbbbbbb-3");
  assert.deepEqual(seen, ["gap bbbbbbbb-0", "bbbbbbbb-1", "bbbbbbbb-2", "bbbbbbbb-3"]);
});

test("a gap before a snapshot has the position it was asked with", async () => {
  const source = await open({ lastEventId: "aaaaaaaa-500", snapshot: true });
  source.control("hello", "aaaaaaaa-500", { id: "aaaaaaaa-500" });
  source.control("gap", "aaaaaaaa-500", { reason: "restart", requested: "aaaaaaaa-500", from: 1, to: 9, next: 9 });
  assert.equal(connection?.position, "aaaaaaaa-500", "cut off here, it is told again");
  for (const seq of [3, 7]) source.event(`bbbbbbbb-${seq}`);
  source.control("checkpoint", "bbbbbbbb-8");
  source.event("bbbbbbbb-9");
  assert.deepEqual(seen, ["gap aaaaaaaa-500", "bbbbbbbb-3", "bbbbbbbb-7", "bbbbbbbb-9"]);
});

test("evicted records are told once, with and without a snapshot", async () => {
  const source = await open({ lastEventId: "aaaaaaaa-5" });
  const gap = { reason: "evicted", requested: "aaaaaaaa-5", from: 6, to: 42, count: 36, oldest: 42, next: 42 };
  source.control("gap", "aaaaaaaa-5", gap);
  source.event("aaaaaaaa-50");
  source.control("gap", "aaaaaaaa-41", gap);
  assert.deepEqual(seen, ["gap aaaaaaaa-5", "aaaaaaaa-50"]);
});

test("positions that say nothing begin anew, also within the epoch", async () => {
  for (const [lastEventId, reason] of [["aaaaaaaa-500", "future"], ["nonsense", "malformed"], ["a-b-c", "malformed"]]) {
    seen = [];
    const source = await open({ lastEventId });
    source.control("hello", "aaaaaaaa-0", { id: "aaaaaaaa-0" });
    source.control("gap", "aaaaaaaa-0", { reason, requested: lastEventId, from: 1, to: 1, next: 1 });
    source.event("aaaaaaaa-1");
    source.event("aaaaaaaa-1");
    assert.deepEqual(seen, ["gap aaaaaaaa-0", "aaaaaaaa-1"], lastEventId);
    connection?.close();
  }
});

test("a gap that is a record has a place like any other", async () => {
  const source = await open({ lastEventId: "aaaaaaaa-5" });
  for (let twice = 0; twice < 2; twice += 1) {
    source.control("gap", "aaaaaaaa-6", { reason: "oversize", requested: null, from: 6, to: 7, count: 1, next: 7 });
    source.event("aaaaaaaa-7");
  }
  assert.deepEqual(seen, ["gap aaaaaaaa-6", "aaaaaaaa-7"]);
});

test("an epoch that no gap announced is asked about, not passed over", async () => {
  const source = await open({ lastEventId: "aaaaaaaa-5" });
  source.control("hello", "aaaaaaaa-5", { id: "aaaaaaaa-5" });
  source.event("bbbbbbbb-6");
  assert.deepEqual(seen, []);
  assert.ok(source.closed);
  mock.timers.tick(1000);
  await settled();
  assert.equal(stream().url.search, "?last_event_id=aaaaaaaa-5");
});

test("a poll's answer from before a restart is thrown away", async () => {
  const source = await open({ lastEventId: "aaaaaaaa-1" });
  source.control("hello", "aaaaaaaa-1", { id: "aaaaaaaa-1" });
  /** @type {(answer: object) => void} */
  let answer = () => {};
  mock.method(there, "fetch", () => new Promise((resolve) => {
    answer = (body) => resolve({ ok: true, json: async () => body });
  }));
  page.dispatchEvent(new Event("online"));
  source.control("gap", "bbbbbbbb-0", { reason: "restart", requested: "aaaaaaaa-1", from: 1, to: 1, next: 1 });
  source.event("bbbbbbbb-1");
  answer({ events: [{ id: "aaaaaaaa-2", name: "n" }], next: "aaaaaaaa-2", gap: null });
  await settled();
  source.event("bbbbbbbb-2");
  assert.deepEqual(seen, ["gap bbbbbbbb-0", "bbbbbbbb-1", "bbbbbbbb-2"]);
});

test("what a poll finds is told before the stream brings it, and once", async () => {
  const source = await open({ lastEventId: "aaaaaaaa-1" });
  source.control("hello", "aaaaaaaa-1", { id: "aaaaaaaa-1" });
  const events = [2, 3].map((seq) => ({ id: `aaaaaaaa-${seq}`, name: "n" }));
  mock.method(there, "fetch", async () => ({ ok: true, json: async () => ({ events, next: "aaaaaaaa-7", gap: null }) }));
  page.dispatchEvent(new Event("online"));
  await settled();
  assert.deepEqual(seen, ["aaaaaaaa-2", "aaaaaaaa-3"]);
  assert.equal(connection?.position, "aaaaaaaa-7");
  for (const seq of [2, 3, 8]) source.event(`aaaaaaaa-${seq}`);
  mock.timers.tick(3_000);
  await settled();
  assert.ok(!source.closed, "it has brought them: it is not deaf");
  assert.deepEqual(seen, ["aaaaaaaa-2", "aaaaaaaa-3", "aaaaaaaa-8"]);
});

test("a stream that does not bring what a poll has found is opened anew", async () => {
  const source = await open({ lastEventId: "aaaaaaaa-1" });
  source.control("hello", "aaaaaaaa-1", { id: "aaaaaaaa-1" });
  const events = [{ id: "aaaaaaaa-2", name: "n" }];
  mock.method(there, "fetch", async () => ({ ok: true, json: async () => ({ events, next: "aaaaaaaa-2", gap: null }) }));
  page.dispatchEvent(new Event("online"));
  await settled();
  mock.timers.tick(3_000);
  await settled();
  assert.ok(source.closed);
  assert.equal(connection?.state.reason, "deaf");
});

test("a page's exceptions are reported and stop nothing", async () => {
  /** @type {unknown[]} */
  const reported = [];
  mock.method(there, "reportError", (/** @type {unknown} */ error) => reported.push(error));
  const source = await open({
    onEvent: ({ id }) => {
      seen.push(id);
      throw new Error(id);
    },
    onState: () => {
      throw new Error("state");
    },
  });
  source.control("hello", "aaaaaaaa-0", { id: "aaaaaaaa-0" });
  for (const seq of [1, 2]) source.event(`aaaaaaaa-${seq}`);
  assert.deepEqual(seen, ["aaaaaaaa-1", "aaaaaaaa-2"]);
  assert.ok(reported.map(String).includes("Error: aaaaaaaa-2"));
});

test("a message that is no JSON is an error of its own", async () => {
  const source = await open();
  source.control("hello", "aaaaaaaa-0", { id: "aaaaaaaa-0" });
  assert.throws(() => source.event("aaaaaaaa-1", "{"), SyntaxError);
  source.event("aaaaaaaa-2");
  assert.deepEqual(seen, ["aaaaaaaa-2"]);
});

test("closing ends it: nothing is told any more, and nothing opened", async () => {
  const source = await open({ onEvent: ({ id }) => void (seen.push(id), connection?.close()) });
  source.control("hello", "aaaaaaaa-0", { id: "aaaaaaaa-0" });
  for (const seq of [1, 2]) source.event(`aaaaaaaa-${seq}`);
  assert.deepEqual(seen, ["aaaaaaaa-1"]);
  assert.equal(connection?.state.state, "closed");
  page.dispatchEvent(new Event("pageshow"));
  mock.timers.tick(3_600_000);
  await settled();
  assert.equal(Source.all.length, 1);
});

test("an abort signal closes it", async () => {
  const controller = new AbortController();
  const source = await open({ signal: controller.signal });
  controller.abort();
  assert.ok(source.closed);
  assert.equal(connection?.state.state, "closed");
  const before = await open({ signal: controller.signal });
  assert.equal(before, source, "none was opened");
});

test("a stream that says no hello is given up", async () => {
  const source = await open();
  mock.timers.tick(4999);
  assert.ok(!source.closed);
  mock.timers.tick(1);
  assert.ok(source.closed);
  assert.match(connection?.state.reason ?? "", /no answer/);
});

test("a page that is put aside lets go, and comes back where it was", async () => {
  const source = await open();
  source.control("hello", "aaaaaaaa-0", { id: "aaaaaaaa-0" });
  source.event("aaaaaaaa-1");
  page.dispatchEvent(new Event("pagehide"));
  assert.ok(source.closed);
  page.dispatchEvent(new Event("pageshow"));
  await settled();
  assert.equal(stream().url.search, "?last_event_id=aaaaaaaa-1");
});
