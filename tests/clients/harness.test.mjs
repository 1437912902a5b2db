// The harness itself: what a server gets wrong is seen, or the tests of what it gets right say nothing.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";

import { eventually } from "../browser/support/wait.mjs";
import * as eventsource from "./support/eventsource.mjs";
import * as particle from "./support/particle.mjs";
import * as python from "./support/python.mjs";
import { Raw } from "./support/raw.mjs";

const EVENT = 'id: 1\nevent: one\ndata: {"data":"1"}\n\n';
const LAST = 'id: 9\nevent: last\ndata: {"data":"9"}\n\n';
/**
 * Keep-alives after an id was seen, right and wrong ones: how many lines of them stand between
 * events, and who takes them for an event.
 */
const WRONG = [
  { bytes: ":\n\n", lines: 2, fooled: ["httpx-sse"] },
  { bytes: "\n", lines: 1, fooled: ["httpx-sse"] },
  { bytes: "retry: 1000\n\n", lines: 0, fooled: ["httpx-sse"] },
  { bytes: "id: 2\n\n", lines: 0, fooled: ["httpx-sse"] },
  { bytes: "event: ping\ndata:\n\n", lines: 0, fooled: ["eventsource", "undici", "sseclient-py", "httpx-sse"] },
  { bytes: "event: ping\ndata: {}\n\n", lines: 0, fooled: ["eventsource", "undici", "sseclient-py", "httpx-sse", "particle-api-js"] },
  { bytes: ":\n", lines: 1, fooled: [] },
];

/** A start that takes longer has failed. It is not measured. */
const STARTS_MAX_MS = 90_000;

/** Streams by the case they ask for. @type {import("node:http").ServerResponse[][]} */
const streams = WRONG.map(() => []);
const server = createServer((asked, answer) => {
  answer.writeHead(200, { "content-type": "text/event-stream" });
  answer.write(":ok\n\n");
  streams[Number(asked.url.split("/")[1])].push(answer);
});
/** Sends a case to all who listen, once there are so many. @param {number} index @param {number} count */
async function send(index, count) {
  await eventually(`${count} listen`, () => streams[index].length === count, STARTS_MAX_MS);
  for (const stream of streams[index]) stream.write(`${EVENT}${WRONG[index].bytes}${LAST}`);
}
let base = "";

before(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  base = `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (server.address()).port}`;
});
after(() => {
  server.close();
  server.closeAllConnections();
});

describe("who takes what for an event", { concurrency: 3 }, () => {
  for (const [index, { bytes, fooled }] of WRONG.entries()) {
    test(`${JSON.stringify(bytes)}: ${fooled.join(", ") || "nobody"}`, async () => {
      const url = `${base}/${index}`;
      const listeners = [
        ...eventsource.kinds.map((kind) => eventsource.listen(kind, url)),
        ...python.kinds.map((kind) => python.listen(kind, url)),
        ...(await Promise.all(particle.versions.map((version) => particle.listen(version, url)))),
      ];
      const raw = await Raw.open(url);
      await send(index, listeners.length + 1);
      try {
        for (const listener of listeners) {
          const { client } = listener;
          const expected = fooled.includes(client.split(" ")[0]) ? 3 : 2;
          await listener.has(expected);
          const names = listener.events.map(({ name }) => name);
          assert.deepEqual([names.length, names[0], names.at(-1)], [expected, "one", "last"], `${client}: ${names}`);
        }
        await raw.until(LAST);
        assert.equal(raw.keepalives, WRONG[index].lines, "lines between events");
      } finally {
        for (const { close } of [...listeners, raw]) close();
      }
    });
  }
});
