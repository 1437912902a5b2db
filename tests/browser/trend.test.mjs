// Samples of a number: bounded, and still of the whole time.

import assert from "node:assert/strict";
import { test } from "node:test";

import { SAMPLES_MAX, Samples } from "../../web/app/broker/trend.js";

test("samples stay bounded, and reach from the first to the newest", () => {
  const samples = new Samples();
  const count = 20 * SAMPLES_MAX;
  for (let i = 0; i < count; i += 1) {
    samples.add(i * 2_000, { sse: i, poll: -i });
    assert.ok(samples.times.length <= SAMPLES_MAX);
  }
  assert.equal(samples.times[0], 0);
  assert.ok(samples.times.at(-1) > 0.98 * (count - 1) * 2_000);
  assert.ok(samples.times.length >= SAMPLES_MAX / 2);
  assert.deepEqual(samples.values.sse, samples.times.map((at) => at / 2_000));
  assert.equal(samples.values.poll.length, samples.times.length);
});
