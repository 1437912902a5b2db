// No keep-alive and no preamble is an event to any client, before it has seen an id and after.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Broker } from "../browser/support/broker.mjs";
import { Upstream } from "../browser/support/upstream.mjs";
import { eventually } from "../browser/support/wait.mjs";
import * as eventsource from "./support/eventsource.mjs";
import { allHave } from "./support/listener.mjs";
import * as particle from "./support/particle.mjs";
import * as python from "./support/python.mjs";
import { Raw } from "./support/raw.mjs";

const NATIVE = ["/events", "/events?control=off", "/events?format=particle", "/events?format=particle&control=off"];
const DROP_IN = "/v1/devices/events";
/**
 * Keep-alives are a second apart, give or take a fifth. Where one stream has had three, every
 * other that began with it has had two.
 */
const KEEPALIVES = 3;

/** @type {Upstream} */
let upstream;
/** @type {Broker} */
let broker;

before(async () => {
  upstream = await Upstream.listen();
  broker = await Broker.serve(upstream, ["--stream-keepalive=1s"]);
});
after(async () => {
  upstream?.close();
  await broker?.stop();
});

/** Every client on a route. @param {string} route */
function clients(route) {
  const url = broker.url + route;
  const accept = "text/event-stream";
  return [
    ...eventsource.kinds.map((kind) => eventsource.listen(kind, url)),
    ...python.kinds.map((kind) => python.listen(kind, url, accept)),
    // As scripts do that set no header.
    ...python.kinds.map((kind) => python.listen(kind, url)),
  ];
}

for (const route of [...NATIVE, DROP_IN]) {
  test(`on ${route}`, async (context) => {
    const before = (await broker.json("/status")).subscribers.total;
    const listeners = clients(route);
    if (route === DROP_IN) listeners.push(...(await Promise.all(particle.versions.map((version) => particle.listen(version, broker.url)))));
    const all = before + listeners.length;
    await eventually("all are there", async () => (await broker.json("/status")).subscribers.total >= all);
    // The last to come, so that it has seen no more than the others.
    const observers = await Promise.all([Raw.open(broker.url + route), Raw.open(broker.url + route, { accept: "text/event-stream" })]);
    const quiet = () => Promise.all(observers.map((observer) => observer.quiet(KEEPALIVES)));

    await quiet();
    // Nothing has come, but what the broker says of itself where that was not declined.
    for (const { client, events } of listeners) assert.deepEqual(events, [], `${client}: false events before any`);

    for (const count of [1, 2]) {
      upstream.push(`keepalive/${count}`, String(count));
      await allHave(listeners, count);
      await quiet();
    }
    for (const { client, events, seen, told, close } of listeners) {
      const data = events.map((event) => (typeof event.data === "string" ? JSON.parse(event.data).data : /** @type {any} */ (event.data).data));
      assert.deepEqual(data, ["1", "2"], client);
      const own = seen.filter((event) => !events.includes(event)).map(({ name }) => name);
      assert.deepEqual(own, route.includes("control=off") || route === DROP_IN ? [] : ["fanlight.hello"], client);
      assert.deepEqual(told.filter((word) => word !== "open"), [], client);
      close();
    }
    for (const observer of observers) observer.close();
    context.diagnostic(listeners.map(({ client }) => client).join(", "));
  });
}
