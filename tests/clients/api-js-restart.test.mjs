// particle-api-js comes back by itself after the broker was away.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Broker } from "../browser/support/broker.mjs";
import { Upstream } from "../browser/support/upstream.mjs";
import { eventually } from "../browser/support/wait.mjs";
import { allHave } from "./support/listener.mjs";
import { listen, versions } from "./support/particle.mjs";

/** After a connection broke they wait up to 15 s for a byte, and 2 s more. */
const RETURN_MAX_MS = 45_000;

/**
 * @param {import("./support/particle.mjs").Version[]} chosen
 * @param {(broker: Broker) => Promise<void>} end
 */
async function comeBack(chosen, end) {
  const upstream = await Upstream.listen();
  const broker = await Broker.serve(upstream, ["--server-drain-window=0s"]);
  try {
    const listeners = await Promise.all(chosen.map((version) => listen(version, broker.url)));
    upstream.push("before", "1");
    await allHave(listeners, 1);
    await end(broker);
    await broker.start();
    await broker.live();
    const back = async () => (await broker.json("/status")).subscribers.total === chosen.length;
    await eventually("all are back", back, RETURN_MAX_MS);
    upstream.push("after", "2");
    await allHave(listeners, 2);
    for (const { client, events, told, close } of listeners) {
      assert.deepEqual(events.map(({ name }) => name), ["before", "after"], client);
      assert.ok(!told.includes("error"), `${client}: ${told}`);
      close();
    }
  } finally {
    upstream.close();
    await broker.stop();
  }
}

const lost = versions.filter(({ returns }) => !returns).map(({ version }) => version);
const skipped = lost.length > 0 && `particle-api-js ${lost} never comes back on Node ${process.versions.node}`;

test("after an orderly restart", async (context) => {
  if (skipped) context.diagnostic(skipped);
  await comeBack(versions.filter(({ returns }) => returns), (broker) => broker.stop());
});

test("after the broker was killed: those that notice a broken connection", async (context) => {
  if (skipped) context.diagnostic(skipped);
  await comeBack(versions.filter(({ returns, idles }) => returns && idles), (broker) => broker.kill());
});
