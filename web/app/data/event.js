// An event as it came from the broker, as the parts of a row.
//
// Law: whatever an event holds, its row has text where text is due.

import { written } from "./json.js";

/**
 * @param {Record<string, any>} event as the protocol has it
 * @param {number} received by this page, Unix milliseconds; NaN if it is from the past
 * @returns {Omit<import("./store.js").Row, "n">}
 */
export function rowOf(event, received) {
  const { id, name, raw, data, coreid } = event;
  return {
    kind: "event", id, name: String(name), data: textOf(raw ?? data), device: typeof coreid === "string" ? coreid : "",
    published: Date.parse(event.published_at), received, event,
  };
}

/** @param {unknown} data */
const textOf = (data) => (typeof data === "string" ? data : data === undefined || data === null ? "" : written(data));
