// The connection to the cloud: how it is, what to do, and how it has been.
//
// Law: drawn from the broker's status alone, when an answer comes and somebody looks.

import * as address from "../page/address.js";
import { card, facts, table } from "../page/card.js";
import { h, setText } from "../page/dom.js";
import { ago, bytes, count, dateTime, duration, percent } from "../page/format.js";
import { meter } from "../page/meter.js";
import { rateOf } from "../data/status.js";
import { OPEN_HOLE, RANGES, Timeline } from "./timeline.js";
import { holeWord, openWord, sourceWord, stateMeaning } from "../page/words.js";

/** Rows of a table before all are asked for. The broker itself keeps 100. */
const ROWS_SHOWN = 12;
/** The parts of the past that can be chosen. @type {Record<keyof typeof RANGES, string>} */
const RANGE_WORDS = { all: "all that is known", "24h": "24 hours", "1h": "1 hour", "15m": "15 minutes" };
/** Part of a budget from which it is told in another tone. */
const NEARLY = 0.75;

/** @param {import("../main.js").Context} context @returns {import("../main.js").View} */
export function upstream(context) {
  const { status } = context;
  let isShown = false;
  let range = "all";
  let tablesKey = "";
  /** @type {Set<HTMLElement>} tables that show all they have */
  const whole = new Set();

  const stale = h("p", { class: "broker-note", "data-tone": "bad" });
  const waiting = h("p", { class: "muted" }, "Asking the broker…");
  const chip = h("span", { class: "chip broker-state" });
  const says = h("p", { class: "broker-says" });
  const detail = h("blockquote", { class: "broker-detail" });
  const todo = h("span");
  const now = facts({
    since: "in this state", source: "source", next: "next attempt", live: "last live", events: "events read", bytes: "bytes read",
  });
  const opens = meter("Opens, counted against the budget");
  const age = meter("Age of the newest byte");
  const held = meter("Events held");
  const size = meter("Memory of these");
  const reach = h("p");
  const ring = facts({ back: "reaches back", newest: "newest record", evicted: "records evicted", latest: "newest values kept" });
  const broker = facts({ version: "version", uptime: "running for", epoch: "epoch", clock: "its clock" });
  const timeline = new Timeline();
  const picker = h("select", { onchange: () => {
    address.amend({ span: picker.value === "all" ? null : picker.value });
    show(address.read().params);
  } }, ...Object.entries(RANGE_WORDS).map(([value, label]) => h("option", { value }, label)));
  const changes = long("Changes of state, newest first", ["State", "From", "For", "Why"]);
  const holes = long("Holes, newest first", ["From", "Until", "For", "Why"]);
  const holesSum = h("p");
  const holesOpen = h("p");
  const outcomes = h("ul", { class: "broker-list" });

  const content = h("div", { class: "broker-content" },
    card("How it is", h("p", { class: "broker-line" }, chip), says, detail,
      h("p", null, h("strong", null, "What to do: "), todo), now.element),
    card("How it has been", h("p", null, h("label", null, "Show", picker)), timeline.element),
    h("div", { class: "broker-pair" },
      card("Limits", opens.element, age.element),
      card("Opens since the start, by what came of them", outcomes)),
    card("Holes: what devices published then is lost", holesSum, holesOpen, holes.element),
    card("Changes of state", changes.element),
    card("The ring: what clients can come back to", reach, held.element, size.element, ring.element),
    card("The broker", broker.element));
  content.hidden = true;
  const element = h("section", { class: "page", "aria-labelledby": "upstream-title" },
    h("h1", { id: "upstream-title" }, "Upstream"), stale, waiting, content);

  status.watch(draw);
  new ResizeObserver(() => drawTimeline()).observe(timeline.element);
  return { element, show, hide };

  /** @param {URLSearchParams} params */
  function show(params) {
    isShown = true;
    const asked = params.get("span") ?? "all";
    range = Object.hasOwn(RANGES, asked) ? asked : "all";
    picker.value = range;
    draw();
  }

  function hide() {
    isShown = false;
  }

  function draw() {
    if (!isShown) return;
    const { report } = status;
    const { error, at } = report;
    stale.hidden = error === "";
    setText(stale, error === "" ? ""
      : `The broker does not answer: ${error}. ${report.now ? `What is shown is from ${dateTime(at)}.` : ""}`);
    waiting.hidden = report.now !== null || error !== "";
    content.hidden = report.now === null;
    if (!report.now) return;
    drawState(report.now);
    drawLimits(report.now);
    drawRing(report.now);
    drawTables(report.now);
    drawTimeline();
  }

  /** @param {any} answer */
  function drawState(answer) {
    const up = answer.upstream;
    const meaning = stateMeaning(up.state);
    const isKnown = status.report.error === "";
    setText(chip, isKnown ? up.state : `last known: ${up.state}`);
    chip.dataset.tone = isKnown ? meaning.tone : "warn";
    setText(says, isKnown ? meaning.says : "How it is now cannot be known while the broker does not answer.");
    detail.hidden = up.detail === "";
    setText(detail, up.detail === "" ? "" : `The broker: ${up.detail}`);
    setText(todo, isKnown ? meaning.todo : "Check that the broker runs, and that a proxy in between passes its answers on.");
    const clock = Date.parse(answer.now);
    now.set({
      since: duration(clock - Date.parse(up.since)),
      source: sourceWord(up.source),
      next: up.next_open_in_seconds === null ? "none planned" : `in ${duration(up.next_open_in_seconds * 1000)}`,
      live: up.state === "live" ? "now" : up.live_last ? ago(clock - Date.parse(up.live_last)) : "never",
      events: `${count(up.events)}${perSecond((one) => one.upstream.events, count)}`,
      bytes: `${bytes(up.bytes)}${perSecond((one) => one.upstream.bytes, bytes)}`,
    });
    broker.set({
      version: answer.version, uptime: duration(answer.uptime_seconds * 1000), epoch: answer.ring.epoch, clock: dateTime(clock),
    });
  }

  /**
   * @param {(status: any) => number} counter
   * @param {(value: number) => string} shown
   */
  function perSecond(counter, shown) {
    const value = rateOf(status.report, counter);
    return Number.isNaN(value) ? "" : ` (${shown === count ? Number(value.toFixed(1)) : shown(value)}/s)`;
  }

  /** @param {any} answer */
  function drawLimits({ upstream: up }) {
    const used = up.opens_in_window / up.opens_max;
    opens.set(up.opens_in_window, up.opens_max, `${count(up.opens_in_window)} of ${count(up.opens_max)}`,
      used >= 1 ? "bad" : used >= NEARLY ? "warn" : "good",
      used >= NEARLY ? "The budget is nearly used: find out what cuts the connection before the broker has to wait."
        : "Within upstream.opens_window. The budget keeps the broker well below the cloud's own limit; it outlives restarts.");
    const silence = up.last_byte_age_seconds;
    const limit = up.stale_after_seconds;
    const isLive = up.state === "live";
    const longest = `Longest silence of a connection so far: ${duration(up.silence_max_seconds * 1000)}.`;
    age.set(silence ?? NaN, limit,
      silence === null ? "none came yet" : `${duration(silence * 1000)}${isLive ? `, dead after ${duration(limit * 1000)}` : ""}`,
      !isLive || silence === null ? "warn" : silence / limit >= NEARLY ? "warn" : "good",
      isLive ? `At upstream.stale_after the connection counts as dead. ${longest}` : `There is no live connection. ${longest}`);
    const known = Object.entries(up.opens).filter(([, number]) => Number(number) > 0);
    list(outcomes, known.map(([outcome, number]) => [count(Number(number)), openWord(outcome)]), "None was tried yet.");
  }

  /** @param {any} answer */
  function drawRing({ ring: its, latest }) {
    const back = its.oldest_age_seconds;
    const isFull = its.evicted > 0;
    setText(reach, back === null ? "The ring is empty: nothing came yet."
      : isFull ? `Clients that were away for less than ${duration(back * 1000)} get everything they missed. ` +
          "For longer, raise ring.events_max and ring.bytes_max."
        : "Everything since the broker's start is still held.");
    held.set(its.events, its.events_max, `${count(its.events)} of ${count(its.events_max)}`);
    size.set(its.bytes, its.bytes_max, `${bytes(its.bytes)} of ${bytes(its.bytes_max)}`);
    ring.set({
      back: back === null ? "–" : duration(back * 1000),
      newest: its.newest_age_seconds === null ? "–" : ago(its.newest_age_seconds * 1000),
      evicted: count(its.evicted),
      latest: `${count(latest.entries)} (${bytes(latest.bytes)})`,
    });
  }

  /** @param {any} answer */
  function drawTables(answer) {
    const { spans, lost } = past(answer);
    const last = spans.at(-1);
    // The one that is open is told apart: it lasts on.
    const over = lost.filter(({ reason }) => reason !== OPEN_HOLE);
    const key = [answer.ring.epoch, spans.length, last?.since, over.length, over.at(-1)?.until, whole.size].join();
    if (key !== tablesKey) {
      tablesKey = key;
      fill(changes, spans.map(({ state, since, until, detail: why }) => {
        const one = h("span", { class: "chip", "data-tone": stateMeaning(state).tone }, state);
        return [one, dateTime(since), duration(until - since), why];
      }));
      fill(holes, over.map(({ reason, since, until }) =>
        [dateTime(since), dateTime(until), duration(until - since), holeWord(reason)]));
    }
    // The present state goes on.
    const lasting = changes.body.rows[0]?.cells[2];
    if (lasting && last) setText(lasting, `${duration(last.until - last.since)} so far`);
    const open = lost.find(({ reason }) => reason === OPEN_HOLE);
    setText(holesOpen, !open ? ""
      : `One more is open since ${dateTime(open.since)}: it is told and counted once the connection is back.`);
    const { holes: number, hole_seconds: seconds } = answer.upstream;
    setText(holesSum, number === 0 ? "None since the broker's start."
      : `${count(number)} since the broker's start, ${duration(seconds * 1000)} together: ` +
        `${percent(Math.min(1, seconds / Math.max(1, answer.uptime_seconds)))} of the time.`);
  }

  /**
   * @param {ReturnType<typeof long>} target
   * @param {import("../page/dom.js").Child[][]} rows oldest first
   */
  function fill(target, rows) {
    const { element: where, body, row, more } = target;
    const isWhole = whole.has(where);
    const some = (isWhole ? rows : rows.slice(-ROWS_SHOWN)).reverse();
    body.replaceChildren(...some.map((cells) => row(...cells)));
    where.hidden = rows.length === 0;
    more.hidden = isWhole || rows.length <= ROWS_SHOWN;
    more.textContent = `Show all ${count(rows.length)}`;
    more.onclick = () => {
      whole.add(where);
      draw();
    };
  }

  function drawTimeline() {
    const answer = status.report.now;
    if (!isShown || !answer) return;
    const { spans, lost, clock } = past(answer);
    timeline.draw(spans, lost, clock, RANGES[/** @type {keyof typeof RANGES} */ (range)]);
  }
}

/**
 * What the broker remembers, in milliseconds, oldest first.
 * @param {any} answer
 */
function past(answer) {
  const clock = Date.parse(answer.now);
  /** @type {any[]} */
  const history = answer.upstream.history;
  const starts = history.map((change) => Date.parse(change.since));
  const spans = history.map((change, i) => ({
    state: String(change.state), detail: String(change.detail),
    since: starts[i], until: Math.max(starts[i], starts[i + 1] ?? clock),
  }));
  /** @type {any[]} */
  const told = answer.upstream.holes_newest;
  /** @type {import("./timeline.js").Hole[]} */
  const lost = told.map(({ reason, since, until }) =>
    ({ reason: String(reason), since: Date.parse(since), until: Date.parse(until) }));
  // The broker tells a hole once it is over. What is open now began where the last live span ended.
  const last = spans.findLast(({ state }) => state === "live");
  const since = last?.until ?? clock - answer.uptime_seconds * 1000;
  if (answer.upstream.state !== "live" && clock > since) lost.push({ reason: OPEN_HOLE, since, until: clock });
  return { spans, lost, clock };
}

/**
 * @param {HTMLElement} where
 * @param {[string, string][]} items a number and what it counts
 * @param {string} none
 */
function list(where, items, none) {
  const text = items.map((item) => item.join(" ")).join("\n") || none;
  if (where.dataset.text === text) return;
  where.dataset.text = text;
  where.replaceChildren(...(items.length > 0
    ? items.map(([number, what]) => h("li", null, h("strong", null, number), " ", what))
    : [h("li", null, none)]));
}

/**
 * A table of which the newest rows are shown first.
 * @param {string} caption
 * @param {string[]} columns
 */
function long(caption, columns) {
  const made = table(caption, columns, { class: "broker-times" });
  const more = h("button", { type: "button", hidden: true });
  return { ...made, more, element: h("div", null, made.element, more) };
}
