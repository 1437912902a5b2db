// The EventSources of Node over reconnects: nothing lost and nothing twice, by Last-Event-ID.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Broker } from "../browser/support/broker.mjs";
import { Proxy } from "../browser/support/proxy.mjs";
import { Random } from "../browser/support/random.mjs";
import { Upstream } from "../browser/support/upstream.mjs";
import { eventually } from "../browser/support/wait.mjs";
import { kinds, listen } from "./support/eventsource.mjs";

/**
 * Where, and how often they are cut: on the Particle cloud's route nothing tells them when to come
 * back, and they take their 3 s each time.
 */
const ROUTES = /** @type {const} */ ([["/events", 12], ["/events?format=particle", 12], ["/v1/devices/events", 4]]);
const BURST_MAX = 40;
const SOON = ["--stream-retry-min=100ms", "--stream-retry-max=200ms"];

/**
 * A broker behind a proxy, fed by a script.
 * @param {string[]} flags
 * @param {(parts: { upstream: Upstream, broker: Broker, proxy: Proxy }) => Promise<void>} use
 */
async function behind(flags, use) {
  const upstream = await Upstream.listen();
  const broker = await Broker.serve(upstream, [...SOON, ...flags]);
  const proxy = await Proxy.before(broker);
  try {
    await use({ upstream, broker, proxy });
  } finally {
    proxy.close();
    upstream.close();
    await broker.stop();
  }
}

for (const kind of kinds) {
  for (const [route, cuts] of ROUTES) {
    test(`${kind.client} on ${route}, cut ${cuts} times`, (context) =>
      behind([], async ({ upstream, proxy }) => {
        const random = new Random(context);
        const listener = listen(kind, proxy.url + route);
        await eventually("it is open", () => listener.told.includes("open"));
        for (let cut = 1; cut <= cuts; cut += 1) {
          const burst = 1 + random.below(BURST_MAX);
          for (let index = 0; index < burst; index += 1) upstream.push("count", String(upstream.pushed));
          // Somewhere within the burst, so that cuts fall between, before and behind events.
          await listener.has(upstream.pushed - random.below(burst));
          const asked = proxy.asked(route);
          proxy.cut();
          await eventually("it is back", () => proxy.asked(route) > asked);
        }
        await listener.has(upstream.pushed);
        listener.close();
        const counted = listener.events.map(({ data }) => Number(JSON.parse(String(data)).data));
        assert.deepEqual(counted, Array.from({ length: upstream.pushed }, (_, index) => index));
        const ids = listener.events.map(({ id }) => id);
        assert.equal(new Set(ids).size, ids.length);
        assert.ok(listener.seen.every(({ name }) => name !== "fanlight.gap"));
      }));
  }

  test(`${kind.client} with a narrow filter: the checkpoint carries it along`, () =>
    behind(["--ring-events-max=16"], async ({ upstream, broker, proxy }) => {
      const listener = listen(kind, `${proxy.url}/events?name=rare`);
      await eventually("the hello", () => listener.seen.length > 0);
      upstream.push("rare", "1");
      await listener.has(1);
      // Twice what the ring holds: its position falls out, but for the checkpoints.
      const checkpoints = () => listener.seen.filter(({ name }) => name === "fanlight.checkpoint").length;
      for (let index = 0; index < 32; index += 1) {
        upstream.push("frequent", String(index));
        await eventually("it is in the ring", async () => (await broker.json("/status")).upstream.events === upstream.pushed);
      }
      await eventually("checkpoints", () => checkpoints() >= 4);
      const asked = proxy.asked("/events");
      proxy.cut();
      await eventually("it is back", () => proxy.asked("/events") > asked);
      upstream.push("rare", "2");
      await listener.has(2);
      listener.close();
      assert.deepEqual(listener.events.map(({ data }) => JSON.parse(String(data)).data), ["1", "2"]);
      assert.deepEqual(listener.seen.filter(({ name }) => name === "fanlight.gap"), [], "nothing was missed, and nothing is said to be");
    }));
}
