// particle-api-js, unmodified and of three kinds, on the routes it knows from the Particle cloud.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Broker } from "../browser/support/broker.mjs";
import { Proxy } from "../browser/support/proxy.mjs";
import { Upstream } from "../browser/support/upstream.mjs";
import { eventually } from "../browser/support/wait.mjs";
import { allHave } from "./support/listener.mjs";
import { listen, versions } from "./support/particle.mjs";
import { Raw } from "./support/raw.mjs";
import { objects, pushAll, samples } from "./support/samples.mjs";

const ROUTE = "/v1/devices/events";
const QUIET_MAX_MS = 110_000;

/** @type {Upstream} */
let upstream;
/** @type {Broker} */
let broker;
/** @type {Proxy} */
let proxy;

/** All of the versions, on streams of the broker's through the proxy. */
const listenAll = (/** @type {object} */ options = undefined, chosen = versions) =>
  Promise.all(chosen.map((version) => listen(version, proxy.url, options)));

before(async () => {
  upstream = await Upstream.listen();
  broker = await Broker.serve(upstream, ["--server-drain-window=0s"]);
  proxy = await Proxy.before(broker);
});
after(async () => {
  proxy?.close();
  upstream?.close();
  await broker?.stop();
});

test("the samples come, in order", async () => {
  const listeners = await listenAll();
  pushAll(upstream);
  await allHave(listeners, samples.length);
  for (const { client, seen, told, close } of listeners) {
    assert.deepEqual(seen.map(({ data }) => data), objects, client);
    assert.deepEqual(told, [], client);
    close();
  }
});

test("a prefix, which they encode, and a device", async () => {
  const [device, name] = ["e00fce680000000000000001", "greenhouse/"];
  const all = await Promise.all([
    listenAll({ deviceId: "mine", name }), listenAll({ deviceId: device }), listenAll({ deviceId: device, name: "display/text" }),
  ]);
  pushAll(upstream);
  // The mark that all before it has come passes the filters of all.
  const mark = JSON.stringify({ data: "mark", coreid: device });
  for (const marked of [`${name}mark`, "display/text/mark"]) upstream.pushRaw(marked, mark);
  const expected = [
    (/** @type {any} */ event) => event.name.startsWith(name),
    (/** @type {any} */ event) => event.coreid === device,
    (/** @type {any} */ event) => event.coreid === device && event.name.startsWith("display/text"),
  ];
  const marks = [[`${name}mark`], [`${name}mark`, "display/text/mark"], ["display/text/mark"]];
  for (const [index, listeners] of all.entries()) {
    const names = [...objects.filter(expected[index]).map((event) => event.name), ...marks[index]];
    await allHave(listeners, names.length);
    for (const { client, events, close } of listeners) {
      assert.deepEqual(events.map((event) => event.name), names, `${client}, ${index}`);
      close();
    }
  }
});

for (const version of versions) {
  test(`${version.version} tells what is wrong with a stream that is not there`, async () => {
    const refused = await listen(version, proxy.url, { product: "40123" }).then(() => undefined, (error) => error);
    assert.equal(refused.statusCode, 404, JSON.stringify(refused));
    assert.ok(refused.body.error && refused.body.error_description, JSON.stringify(refused.body));
    assert.ok(refused.errorDescription.endsWith(` - ${refused.body.error_description}`), refused.errorDescription);
  });
}

test("they publish, and get what they published", async () => {
  const demo = await Broker.demo(["--publish-enabled=true"]);
  try {
    const listeners = await Promise.all(versions.map((version) => listen(version, demo.url, { deviceId: "mine", name: "published/" })));
    for (const { version, Particle } of versions) {
      const published = { name: `published/${version}`, data: `from ${version}`, isPrivate: true, auth: "not-a-real-token" };
      const { statusCode, body } = await new Particle({ baseUrl: demo.url }).publishEvent(published);
      assert.deepEqual([statusCode, body], [200, { ok: true }], version);
    }
    await allHave(listeners, versions.length);
    for (const { client, events, close } of listeners) {
      const got = events.map(({ data }) => /** @type {any} */ (data)).map(({ name, data, coreid }) => [name, data, coreid]);
      const expected = versions.map(({ version }) => [`published/${version}`, `from ${version}`, "api"]);
      assert.deepEqual(got, expected, client);
      close();
    }
  } finally {
    await demo.stop();
  }
});

test("a long quiet, and an upstream that goes away: nobody notices", async () => {
  const asked = proxy.asked(ROUTE);
  const listeners = await listenAll();
  const observer = await Raw.open(broker.url + ROUTE);
  // Nine to ten seconds each: more than a minute, and than any idle timeout of theirs.
  await observer.quiet(7, QUIET_MAX_MS);
  upstream.push("after/quiet", "1");
  await allHave(listeners, 1);

  upstream.drop();
  await eventually("the upstream is opened again", () => upstream.connections === 1);
  await broker.live();
  upstream.push("after/outage", "2");
  await allHave(listeners, 2);

  for (const { client, events, told, close } of listeners) {
    assert.deepEqual(events.map(({ name }) => name), ["after/quiet", "after/outage"], client);
    assert.deepEqual(told, [], client);
    close();
  }
  assert.equal(proxy.asked(ROUTE) - asked, versions.length, "one request each");
  observer.close();
  assert.match(observer.text, /^:ok\n\n\n+event: after\/quiet\ndata: [^\n]+\n\nevent: after\/outage\ndata: [^\n]+\n\n\n*$/);
});
