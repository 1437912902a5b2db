// particle-cli with the broker as its cloud: what it publishes, it gets.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Broker } from "../browser/support/broker.mjs";
import { Upstream } from "../browser/support/upstream.mjs";
import { eventually } from "../browser/support/wait.mjs";
import { Cli, version } from "./support/cli.mjs";

const skip = !version && "particle-cli is not installed; `tests/clients/run --cli` installs it";
const DEVICE = "e00fce680000000000000001";
const STARTS_MAX_MS = 60_000;

/**
 * The events it printed.
 * @param {import("./support/cli.mjs").Ended} ended
 */
const printed = ({ text }) => text.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
/** @param {Broker} broker @param {number} count */
const listening = (broker, count) =>
  eventually(`${count} listen`, async () => (await broker.json("/status")).subscribers.total === count, STARTS_MAX_MS);

describe(`particle-cli ${version ?? ""}`, { skip }, () => {
  /** @type {Upstream} */
  let upstream;
  /** @type {Cli} */
  let cli;
  /** @type {Broker} */
  let broker;

  before(async () => {
    upstream = await Upstream.listen();
    broker = await Broker.serve(upstream);
    cli = await Cli.for(broker.url);
  });
  after(async () => {
    upstream?.close();
    await broker?.stop();
    cli?.remove();
  });

  test("subscribes to all, to a prefix, and to a device", async () => {
    const running = [
      cli.run("subscribe", "--max", "3"), cli.run("subscribe", "door/", "--max", "1"), cli.run("subscribe", "--device", DEVICE, "--until", "shut"),
    ];
    await listening(broker, running.length);
    upstream.push("light", "12");
    upstream.push("door/state", "open");
    upstream.push("window", "shut", DEVICE);
    const ended = await Promise.all(running);
    assert.deepEqual(ended.map(({ status }) => status), [0, 0, 0], JSON.stringify(ended));
    const names = ended.map((one) => printed(one).map(({ name }) => name));
    assert.deepEqual(names, [["light", "door/state", "window"], ["door/state"], ["window"]]);
  });

  test("tells what is wrong with a stream that is not there", async () => {
    const { status, text } = await cli.run("subscribe", "--product", "40123");
    assert.notEqual(status, 0);
    assert.match(text, /Error fetching event stream/);
    assert.match(text, /40123|product/i);
  });

  test("tells that publishing is off", async () => {
    const { status, text } = await cli.run("publish", "cli/greeting", "hello");
    assert.notEqual(status, 0);
    assert.match(text, /Error publishing event/);
    assert.match(text, /publish\.enabled/);
  });

  test("publishes, and gets what it published", async () => {
    const demo = await Broker.demo(["--publish-enabled=true"]);
    const own = await Cli.for(demo.url);
    try {
      const subscribed = own.run("subscribe", "cli/", "--max", "1");
      await listening(demo, 1);
      const published = await own.run("publish", "cli/greeting", "hello");
      assert.equal(published.status, 0, published.text);
      assert.match(published.text, /Published private event: cli\/greeting/);
      const [{ name, data, coreid }] = printed(await subscribed);
      assert.deepEqual({ name, data, coreid }, { name: "cli/greeting", data: "hello", coreid: "api" });
    } finally {
      own.remove();
      await demo.stop();
    }
  });
});
