// A subscription that runs here: what comes is passed on as the text it came as.
//
// Law: nothing is read into it. What the broker refuses is told in its own words.

import { encode, endpoint, query, url } from "./subscription.js";

/** Time between two polls that failed. */
const AGAIN_MS = 3_000;
/** Characters of one line that are kept while its end has not come. */
const LINE_CHARS_MAX = 2_000_000;

const encoder = new TextEncoder();

/** @typedef {import("./subscription.js").Subscription} Subscription */

/**
 * @typedef {object} Told
 * @property {(line: string) => void} line one line of text; a message of a WebSocket is one, and an answer to a poll has one for each event
 * @property {(events: number, bytes: number) => void} came so many events, without control events
 * @property {(text: string) => void} state how it stands
 * @property {(text: string, failed: boolean) => void} end it is over; why
 */

/**
 * @param {Subscription} subscription
 * @param {string} base
 * @param {Told} told
 * @returns {() => void} stops it
 */
export function run(subscription, base, told) {
  const stop = new AbortController();
  const reads = { sse: stream, ndjson: stream, ws: socket, poll }[subscription.transport];
  reads(subscription, base, told, stop.signal).then(
    (text) => { if (!stop.signal.aborted) told.end(text, false); },
    (error) => { if (!stop.signal.aborted) told.end(error instanceof Refusal ? error.message : `The connection failed: ${error.message}`, true); });
  return () => stop.abort();
}

class Refusal extends Error {}

/** @param {Response} answer @returns {Promise<Refusal>} */
async function refusal(answer) {
  const text = (await answer.text()).slice(0, 4_000);
  try {
    const { error, error_description: description } = JSON.parse(text);
    return new Refusal(`${answer.status} ${error}: ${description}`);
  } catch {
    return new Refusal(`${answer.status} ${answer.statusText} ${text}`);
  }
}

/** @type {(subscription: Subscription, base: string, told: Told, signal: AbortSignal) => Promise<string>} */
async function stream(subscription, base, told, signal) {
  const isSse = subscription.transport === "sse";
  const accept = isSse ? "text/event-stream" : "application/x-ndjson";
  const answer = await fetch(url(base, subscription), { headers: { accept }, signal, cache: "no-store" });
  if (!answer.ok || !answer.body) throw await refusal(answer);
  told.state(`${answer.status} ${answer.headers.get("content-type")}`);
  const counts = isSse ? new SseCount() : null;
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = (lines.pop() ?? "").slice(0, LINE_CHARS_MAX);
    let events = 0;
    for (const line of lines) {
      events += counts ? counts.line(line) : Number(isEvent(line));
      told.line(line);
    }
    told.came(events, value.length);
  }
  if (rest) told.line(rest);
  return "The broker ended the stream.";
}

/** @type {(subscription: Subscription, base: string, told: Told, signal: AbortSignal) => Promise<string>} */
function socket(subscription, base, told, signal) {
  return new Promise((resolve, reject) => {
    const made = new WebSocket(url(base, subscription), ["fanlight.v1"]);
    let isOpen = false;
    signal.addEventListener("abort", () => made.close());
    made.onopen = () => {
      isOpen = true;
      told.state(`open, ${made.protocol}`);
    };
    made.onmessage = ({ data }) => {
      told.line(data);
      told.came(Number(isEvent(data)), encoder.encode(data).length);
    };
    made.onclose = async ({ code, reason }) => {
      if (isOpen) resolve(`Closed with ${code}${reason ? `: ${reason}` : ""}.`);
      else reject(await why(url(base, { ...subscription, transport: "ws" }), signal));
    };
  });
}

/**
 * Why a WebSocket was refused: browsers do not say, so the same is asked as a plain request.
 * @param {string} address
 * @param {AbortSignal} signal
 */
async function why(address, signal) {
  const answer = await fetch(address.replace(/^ws/, "http"), { signal, cache: "no-store" }).catch(() => null);
  // 426 is what a plain request gets where all else is right.
  return answer && !answer.ok && answer.status !== 426 ? refusal(answer) : new Error("no WebSocket could be opened; does a proxy stand in between?");
}

/** @type {(subscription: Subscription, base: string, told: Told, signal: AbortSignal) => Promise<string>} */
async function poll(subscription, base, told, signal) {
  let pairs = query(subscription);
  for (;;) {
    const answer = await fetch(`${endpoint(base, "poll")}?${encode(pairs)}`, { signal, cache: "no-store" });
    if (answer.status >= 500 || answer.status === 429) {
      told.state(`${(await refusal(answer)).message}; asking again in ${AGAIN_MS / 1000} s`);
      await new Promise((go) => setTimeout(go, AGAIN_MS));
      if (signal.aborted) return "";
      continue;
    }
    if (!answer.ok) throw await refusal(answer);
    const text = await answer.text();
    const { events, next, gap } = JSON.parse(text);
    if (gap) told.line(JSON.stringify({ gap }));
    for (const event of events) told.line(JSON.stringify(event));
    told.line(JSON.stringify({ next }));
    told.came(events.filter((/** @type {any} */ event) => event.fanlight === undefined).length, encoder.encode(text).length);
    told.state(`${answer.status}, asking again after each answer`);
    pairs = [...pairs.filter(([name]) => name !== "after" && name !== "since"), ["after", next]];
  }
}

/** The broker writes what a control object is in front, or behind its id. */
const isEvent = (/** @type {string} */ line) => line !== "" && !/^\{("id":"[^"]*",)?"fanlight":/.test(line);

/** Counts the events in lines of an event stream. */
class SseCount {
  #hasData = false;
  #isControl = false;

  /** @param {string} line @returns {number} events that it ends */
  line(line) {
    if (line.startsWith("data:")) this.#hasData = true;
    else if (line.startsWith("event: fanlight.")) this.#isControl = true;
    if (line !== "") return 0;
    const ended = Number(this.#hasData && !this.#isControl);
    this.#hasData = false;
    this.#isControl = false;
    return ended;
  }
}
