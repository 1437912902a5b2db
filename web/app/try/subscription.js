// A subscription as somebody puts it together: its parts, the address that keeps them, and
// the URL they make. Pure.
//
// Law: whatever text comes in, the URL says the same text to the broker.

import { link } from "../page/address.js";

/** Values of one list that are read from the address. The broker takes fewer, and says so. */
const VALUES_MAX = 64;

/** @typedef {"sse" | "ndjson" | "ws" | "poll"} Transport */
/** @typedef {"now" | "since" | "earliest" | "position"} Start */

/**
 * @typedef {object} Subscription
 * @property {Transport} transport
 * @property {string[]} prefix
 * @property {string[]} name
 * @property {string[]} device
 * @property {Start} start
 * @property {string} since a duration back or a time, for `since`
 * @property {string} position for `position`
 * @property {boolean} snapshot first the newest value of each name and device
 * @property {boolean} control tells of gaps and holes
 * @property {string} limit events, or ""
 * @property {"message" | "particle"} format of SSE
 */

export const LISTS = /** @type {const} */ (["prefix", "name", "device"]);

/** @param {URLSearchParams} params of the address @returns {Subscription} */
export function subscriptionOf(params) {
  /** @template {string} T @param {string} name @param {T[]} words @returns {T} */
  const one = (name, words) => words.find((word) => word === params.get(name)) ?? words[0];
  const list = (/** @type {string} */ name) => params.getAll(name).filter(Boolean).slice(0, VALUES_MAX).map(clean);
  return {
    transport: one("transport", ["sse", "ndjson", "ws", "poll"]),
    prefix: list("prefix"),
    name: list("name"),
    device: list("device"),
    start: one("start", ["now", "since", "earliest", "position"]),
    since: clean(params.get("since") ?? "5m"),
    position: clean(params.get("position") ?? ""),
    snapshot: params.get("snapshot") === "true",
    control: params.get("control") !== "off",
    limit: clean(params.get("limit") ?? ""),
    format: one("format", ["message", "particle"]),
  };
}

/**
 * The same for the address; what is as usual is left out.
 * @param {Partial<Subscription>} subscription
 */
export function paramsOf(subscription) {
  const { transport, start, since, position, snapshot, control, limit, format } = subscription;
  const params = new URLSearchParams();
  if (transport && transport !== "sse") params.set("transport", transport);
  for (const name of LISTS) for (const value of subscription[name] ?? []) params.append(name, value);
  if (start && start !== "now") params.set("start", start);
  if (start === "since" && since !== undefined) params.set("since", since);
  if (start === "position" && position) params.set("position", position);
  if (snapshot) params.set("snapshot", "true");
  if (control === false) params.set("control", "off");
  if (limit) params.set("limit", limit);
  if (format === "particle") params.set("format", format);
  return params;
}

/**
 * A link to this view, filled in. A position alone means to begin after it.
 * @param {Partial<Subscription> & {run?: boolean}} subscription `run` starts it
 */
export function tryLink({ run, ...subscription }) {
  const start = subscription.start ?? (subscription.position ? "position" : undefined);
  const params = paramsOf({ ...subscription, start });
  if (run) params.set("run", "1");
  return link("try", params);
}

/**
 * What the broker is asked, as pairs in a fixed order.
 * @param {Subscription} subscription
 * @returns {[string, string][]}
 */
export function query(subscription) {
  const { transport, start, since, position, snapshot, control, limit, format } = subscription;
  /** @type {[string, string][]} */
  const pairs = LISTS.flatMap((name) => subscription[name].map((value) => /** @type {[string, string]} */ ([name, value])));
  if (start === "since") pairs.push(["since", since]);
  if (start === "earliest") pairs.push(["since", "earliest"]);
  if (start === "position") pairs.push([transport === "poll" ? "after" : "last_event_id", position]);
  if (snapshot) pairs.push(["snapshot", "true"]);
  if (!control) pairs.push(["control", "off"]);
  if (limit) pairs.push(["limit", limit]);
  if (format === "particle" && transport === "sse") pairs.push(["format", "particle"]);
  return pairs;
}

/** @type {Record<Transport, string>} */
const PATHS = { sse: "events", ndjson: "events", ws: "ws", poll: "poll" };

/**
 * @param {string} base URL the broker is served under, with a slash at its end
 * @param {Transport} transport
 */
export function endpoint(base, transport) {
  const url = base + PATHS[transport];
  return transport === "ws" ? url.replace(/^http/i, "ws") : url;
}

/** @param {[string, string][]} pairs spaces as %20, which every program reads alike */
export const encode = (pairs) => new URLSearchParams(pairs).toString().replaceAll("+", "%20");

/**
 * @param {string} base
 * @param {Subscription} subscription
 */
export function url(base, subscription) {
  const pairs = query(subscription);
  return endpoint(base, subscription.transport) + (pairs.length ? `?${encode(pairs)}` : "");
}

/** Half a surrogate pair has no UTF-8: it becomes what it would become on the way. */
const clean = (/** @type {string} */ text) => text.replace(/\p{Surrogate}/gu, "\ufffd");

/**
 * A list as typed, a value a line. Spaces count; empty lines do not.
 * @param {string} text
 */
export const listOf = (text) => text.split(/\r?\n/).filter(Boolean).slice(0, VALUES_MAX).map(clean);
