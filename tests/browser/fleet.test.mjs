// The model of the devices: states, pauses, rates and bounds.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  DEVICES_MAX, Fleet, ID_CHARS_MAX, MINUTES, NAMES_MAX, PAUSES_MAX, PAUSES_MIN, RECENT_MS, SILENT_MIN_MS,
  VALUE_CHARS_MAX, judge, patience, rate,
} from "../../web/app/devices/fleet.js";

const START = Date.UTC(2026, 0, 1);
/** @param {number} now */
const clock = (now, from = -Infinity, to = now) => ({ now, from, to });
/** @param {string} device @param {number} at */
const heard = (device, at, name = "temp", data = "1") => ({ device, name, data, at });
/** @param {Fleet} fleet @param {string} id @param {number} period @param {number} count */
const every = (fleet, id, period, count, from = START) => {
  for (let i = 0; i < count; i += 1) fleet.hear(heard(id, from + i * period));
  return known(fleet, id);
};
/** @param {Fleet} fleet @param {string} id */
const known = (fleet, id) => {
  const found = fleet.devices.get(id);
  assert.ok(found, `${id} is known`);
  return found;
};
const everything = { text: "", state: "", sort: "state" };

test("a device is online from any event, and offline when spark/status says so", () => {
  const fleet = new Fleet();
  fleet.hear(heard("a", START));
  const device = known(fleet, "a");
  assert.equal(judge(device, clock(START + 1)), "online");
  fleet.hear(heard("a", START + 10, "spark/status", "offline"));
  assert.equal(judge(device, clock(START + 11)), "offline");
  fleet.hear(heard("a", START + 20, "spark/status", "online"));
  assert.equal(judge(device, clock(START + 21)), "online");
  fleet.hear(heard("a", START + 30, "spark/status", "offline"));
  fleet.hear(heard("a", START + 40));
  assert.equal(judge(device, clock(START + 41)), "online");
});

test("silence is relative to the device's own pauses", () => {
  const fleet = new Fleet();
  const quick = every(fleet, "quick", 20_000, 10);
  const slow = every(fleet, "slow", 600_000, 10);
  assert.equal(quick.usual, 20_000);
  assert.equal(judge(quick, clock(quick.lastAt + 60_000)), "online");
  assert.equal(judge(quick, clock(quick.lastAt + 60_001)), "silent");
  assert.equal(judge(slow, clock(slow.lastAt + 1_800_000)), "online");
  assert.equal(judge(slow, clock(slow.lastAt + 1_800_001)), "silent");
});

test("nobody is called silent before the least time", () => {
  const device = every(new Fleet(), "a", 1_500, 10);
  assert.equal(patience(device), SILENT_MIN_MS);
});

test("nothing is said of a device whose pace is unknown", () => {
  const device = every(new Fleet(), "a", 10_000, PAUSES_MIN);
  assert.ok(Number.isNaN(device.usual));
  assert.equal(judge(device, clock(device.lastAt + RECENT_MS)), "online");
  assert.equal(judge(device, clock(device.lastAt + RECENT_MS + 1)), "seen");
});

test("events of a burst are one sign of life", () => {
  const fleet = new Fleet();
  for (let i = 0; i < 8; i += 1) for (let j = 0; j < 20; j += 1) fleet.hear(heard("a", START + i * 300_000 + j * 10));
  assert.equal(known(fleet, "a").usual, 300_000);
});

test("one outage does not make silence usual", () => {
  const fleet = new Fleet();
  every(fleet, "a", 10_000, 8);
  const device = every(fleet, "a", 10_000, 2, START + 10_000_000);
  assert.equal(device.usual, 10_000);
});

test("a pause across a break is not the device's", () => {
  const fleet = new Fleet();
  every(fleet, "a", 10_000, 8);
  fleet.interrupt();
  every(fleet, "a", 10_000, 1, START + 10_000_000);
  fleet.interrupt();
  const device = every(fleet, "a", 10_000, 1, START + 20_000_000);
  assert.equal(device.usual, 10_000);
  assert.equal(Math.max(...device.pauses), 10_000);
});

test("quiet counts only while a device could be heard", () => {
  const device = every(new Fleet(), "a", 20_000, 10);
  const late = device.lastAt + 1_000_000;
  assert.equal(judge(device, clock(late)), "silent");
  assert.equal(judge(device, clock(late, late - 1_000)), "online", "the cloud has been back for a second");
  assert.equal(judge(device, clock(late, -Infinity, device.lastAt + 5_000)), "online", "lost five seconds later");
});

test("a seed is known, not counted, and never newer than what the stream said", () => {
  const fleet = new Fleet();
  fleet.hear(heard("a", START + 100, "temp", "new"));
  fleet.seed(heard("a", START, "temp", "old"));
  fleet.seed(heard("a", START + 50, "door", "open"));
  fleet.seed(heard("a", START + 60, "spark/status", "offline"));
  fleet.seed(heard("b", START, "spark/status", "offline"));
  const device = known(fleet, "a");
  assert.equal(device.names.get("temp")?.data, "new");
  assert.equal(device.names.get("door")?.data, "open");
  assert.equal(device.newest, "temp");
  assert.equal(device.events, 1);
  assert.equal(rate(device, START + 100).total, 1);
  assert.equal(judge(device, clock(START + 200)), "online");
  assert.equal(judge(known(fleet, "b"), clock(START + 200)), "offline");
});

test("the rate is of the last minutes, and minutes without events are in it", () => {
  const fleet = new Fleet();
  for (const minute of [0, 0, 1, 5, 29]) fleet.hear(heard("a", START + minute * 60_000));
  const device = known(fleet, "a");
  let { counts, total, most } = rate(device, START + 29 * 60_000);
  assert.deepEqual([counts.length, counts[0], counts[1], counts[5], counts[29]], [MINUTES, 2, 1, 1, 1]);
  assert.deepEqual([total, most], [5, 2]);
  ({ counts, total } = rate(device, START + 34 * 60_000));
  assert.deepEqual([counts[0], counts[24], total], [1, 1, 2]);
  assert.equal(rate(device, START + 500 * 60_000).total, 0);
  fleet.hear(heard("a", START + 100 * 60_000));
  assert.equal(rate(device, START + 100 * 60_000).total, 1);
  fleet.hear(heard("a", START + 60_000));
  assert.equal(rate(device, START + 100 * 60_000).total, 1, "too old to count");
});

test("all that is kept is bounded", () => {
  const fleet = new Fleet();
  for (let i = 0; i < DEVICES_MAX + 5; i += 1) fleet.hear(heard(`device-${i}`, START));
  assert.equal(fleet.devices.size, DEVICES_MAX);
  assert.equal(fleet.refused, 5);
  fleet.hear(heard("device-0", START + 1));
  assert.equal(fleet.refused, 5, "those that are known go on");
  for (let i = 0; i < NAMES_MAX + 3; i += 1) fleet.hear(heard("device-1", START + 10 + i, `name-${i}`, "x".repeat(10_000)));
  const device = known(fleet, "device-1");
  assert.equal(device.names.size, NAMES_MAX);
  assert.equal(device.namesForgotten, 4);
  assert.ok(!device.names.has("name-1") && device.names.has(`name-${NAMES_MAX + 2}`));
  assert.equal(device.names.get(`name-${NAMES_MAX}`).data.length, VALUE_CHARS_MAX + 1);
  every(fleet, "device-2", 2_000, 500);
  assert.equal(known(fleet, "device-2").pauses.length, PAUSES_MAX);
});

test("the list: silent ones first, filtered by id, name and state, sorted, counted", () => {
  const fleet = new Fleet();
  every(fleet, "B-quiet", 20_000, 10);
  every(fleet, "a-alive", 20_000, 20);
  fleet.hear(heard("c-away", START + 380_000, "spark/status", "offline"));
  const at = clock(START + 381_000);
  const ids = (wish) => fleet.list({ ...everything, ...wish }, at).shown.map(({ id }) => id);
  assert.deepEqual(ids({}), ["B-quiet", "c-away", "a-alive"]);
  assert.deepEqual(fleet.list(everything, at).counts, { silent: 1, offline: 1, seen: 0, online: 1 });
  assert.deepEqual(ids({ sort: "id" }), ["B-quiet", "a-alive", "c-away"]);
  assert.deepEqual(ids({ sort: "rate" }), ["a-alive", "B-quiet", "c-away"]);
  assert.deepEqual(ids({ sort: "oldest" }), ["B-quiet", "a-alive", "c-away"]);
  assert.deepEqual(ids({ sort: "no such" }), ["B-quiet", "c-away", "a-alive"]);
  assert.deepEqual(ids({ text: "SPARK" }), ["c-away"]);
  assert.deepEqual(ids({ text: "b- temp" }), ["B-quiet"]);
  assert.deepEqual(ids({ state: "online" }), ["a-alive"]);
});

test("events that name no device are counted", () => {
  const fleet = new Fleet();
  fleet.hear(heard("", START));
  fleet.hear(heard("x".repeat(ID_CHARS_MAX + 1), START));
  fleet.seed(heard("", START));
  assert.deepEqual([fleet.devices.size, fleet.nameless], [0, 2]);
});

test("unknown times hurt nobody", () => {
  const fleet = new Fleet();
  fleet.seed(heard("a", NaN, "temp", "1"));
  fleet.hear(heard("a", NaN, "temp", "2"));
  const device = known(fleet, "a");
  assert.equal(judge(device, clock(START)), "seen");
  assert.equal(device.names.get("temp")?.data, "2");
  fleet.hear(heard("a", START, "temp", "3"));
  fleet.hear(heard("a", NaN, "temp", "4"));
  assert.equal(device.lastAt, START);
  assert.equal(device.names.get("temp")?.data, "3");
});
