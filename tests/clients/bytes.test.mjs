// A plain HTTP client of the Particle cloud's route gets the bytes that the cloud sent.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Broker } from "../browser/support/broker.mjs";
import { Upstream } from "../browser/support/upstream.mjs";
import { eventually } from "../browser/support/wait.mjs";
import { Raw } from "./support/raw.mjs";
import { pushAll, samples } from "./support/samples.mjs";

const ROUTES = ["/v1/devices/events", "/v1/devices/events/", "//v1//devices/events?nonce=0.5&access_token=not-a-real-token"];
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

const sent = samples.map(({ bytes }) => bytes).join("");

test("whoever asks as its clients do gets its bytes, and its keep-alives between them", async () => {
  const raws = await Promise.all(ROUTES.map((route) => Raw.open(broker.url + route, { authorization: "Bearer not-a-real-token" })));
  pushAll(upstream);
  await Promise.all(raws.map((raw) => eventually("all of it", () => raw.body.length >= `:ok\n\n${sent}`.length)));
  await Promise.all(raws.map((raw) => raw.quiet(KEEPALIVES)));
  for (const raw of raws) {
    raw.close();
    assert.equal(raw.head.statusCode, 200);
    assert.equal(raw.head.headers["content-type"], "text/event-stream");
    assert.ok(raw.text.startsWith(`:ok\n\n${sent}\n\n\n`), raw.text);
    assert.match(raw.text.slice(`:ok\n\n${sent}`.length), /^\n+$/);
  }
});

test("whoever asks for an event stream by name gets ids in front, and else the same", async () => {
  const raw = await Raw.open(broker.url + ROUTES[0], { accept: "text/event-stream" });
  pushAll(upstream);
  await eventually("all of it", () => raw.text.endsWith(samples.at(-1).bytes));
  raw.close();
  const ids = [...raw.text.matchAll(/^id: (.+)\n/gm)].map(([, id]) => id);
  assert.equal(ids.length, samples.length);
  const expected = samples.map(({ bytes }, index) => `id: ${ids[index]}\n${bytes}`).join("");
  assert.equal(raw.text, `:ok\n\n${expected}`);
});

test("the native route keeps the data as it came", async () => {
  const raw = await Raw.open(`${broker.url}/events?format=particle&control=off&prefix=`);
  pushAll(upstream);
  await eventually("all of it", () => raw.text.endsWith(samples.at(-1).bytes));
  raw.close();
  assert.equal(raw.text.replace(/^retry: \d+\n/, "").replace(/^id: .+\n/gm, ""), sent);
});
