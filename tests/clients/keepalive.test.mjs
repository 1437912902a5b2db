// No keep-alive and no preamble is an event to any client, before it has seen an id and after.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

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
/** A start that takes longer has failed. It is not measured. */
const STARTS_MAX_MS = 90_000;

/**
 * Every client on a route of a broker's, each with a stream.
 * @param {Broker} broker
 * @param {string} route
 */
async function clients(broker, route) {
  const url = broker.url + route;
  const listeners = eventsource.kinds.map((kind) => eventsource.listen(kind, url));
  // First, while this process still has a hand free: starting others can take it seconds.
  for (const { client, told } of listeners) await eventually(`${client} is open`, () => told.includes("open"), STARTS_MAX_MS);
  if (route === DROP_IN) listeners.push(...(await Promise.all(particle.versions.map((version) => particle.listen(version, broker.url)))));
  listeners.push(...python.kinds.map((kind) => python.listen(kind, url, "text/event-stream")));
  // As scripts do that set no header. (httpx-sse sets it by itself.)
  listeners.push(python.listen(python.sseclient, url));
  const there = async () => (await broker.json("/status")).subscribers.total === listeners.length;
  await eventually("all are there", there, STARTS_MAX_MS);
  return listeners;
}

describe("no client sees a false event", { concurrency: 3 }, () => {
  for (const route of [...NATIVE, DROP_IN]) {
    test(`on ${route}`, async (context) => {
      const upstream = await Upstream.listen();
      const broker = await Broker.serve(upstream, ["--stream-keepalive=1s"]);
      /** @type {import("./support/listener.mjs").Listener[]} */
      let listeners = [];
      try {
        listeners = await clients(broker, route);
        await observe(upstream, broker.url + route, listeners);
      } finally {
        for (const { close } of listeners) close();
        upstream.close();
        await broker.stop();
      }
      const hello = route.includes("control=off") || route === DROP_IN ? [] : ["fanlight.hello"];
      for (const { client, seen, events, told } of listeners) {
        const [own, data] = [seen.filter((event) => !events.includes(event)), events.map(value)];
        assert.deepEqual(data, ["1", "2"], client);
        assert.deepEqual(own.map(({ name }) => name), hello, client);
        assert.ok(told.length <= 1 && (told[0] ?? "open") === "open", `${client}: ${told}`);
      }
      context.diagnostic(`${route}: ${listeners.map(({ client }) => client).join(", ")}`);
    });
  }
});

/** What the device published. @param {import("./support/listener.mjs").Seen} event */
function value({ data }) {
  return (typeof data === "string" ? JSON.parse(data) : /** @type {any} */ (data)).data;
}

/**
 * Keep-alives, an event, keep-alives, an event, keep-alives.
 * @param {Upstream} upstream
 * @param {string} url
 * @param {import("./support/listener.mjs").Listener[]} listeners
 */
async function observe(upstream, url, listeners) {
  // They come last, so they have had no keep-alive that the clients have not.
  const observers = await Promise.all([Raw.open(url), Raw.open(url, { accept: "text/event-stream" })]);
  const quiet = () => Promise.all(observers.map((observer) => observer.quiet(KEEPALIVES)));
  try {
    await quiet();
    for (const { client, events } of listeners) assert.deepEqual(events, [], `${client}: false events before any`);
    for (const count of [1, 2]) {
      upstream.push(`keepalive/${count}`, String(count));
      await allHave(listeners, count);
      await quiet();
    }
  } finally {
    for (const observer of observers) observer.close();
  }
}
