// The twenty sample events: what the Particle cloud writes, to the byte.

import { readFileSync } from "node:fs";

const text = readFileSync(new URL("../../data/particle-wire-samples.txt", import.meta.url), "utf8");

/** @typedef {{ name: string, data: string, bytes: string }} Sample */

/**
 * In order; `bytes` is the event with its blank line.
 * @type {Sample[]}
 */
export const samples = [...text.matchAll(/^event: (.*)\ndata: (.*)\n\n/gm)].map(([bytes, name, data]) => ({ name, data, bytes }));
if (samples.length !== 20) throw new Error(`${samples.length} samples, not 20`);

/** What particle-api-js makes of them. */
export const objects = samples.map(({ name, data }) => ({ ...JSON.parse(data), name }));

/** @param {import("../../browser/support/upstream.mjs").Upstream} upstream */
export function pushAll(upstream) {
  for (const { name, data } of samples) upstream.pushRaw(name, data);
}
