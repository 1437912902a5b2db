// Who reads from the broker: how many, how fast, what they missed and why they went.
//
// Law: drawn from the broker's status alone, when an answer comes and somebody looks.

import { card, facts, table } from "../page/card.js";
import { h, setText } from "../page/dom.js";
import { bytes, count, dateTime, duration, rate, second } from "../page/format.js";
import { meter } from "../page/meter.js";
import { rateOf } from "../data/status.js";
import { Samples, trend } from "./trend.js";
import { closeWord, gapWord, transportWord } from "../page/words.js";

/** Part of the limit from which it is told in another tone. */
const NEARLY = 0.9;
/** Part of the ring behind which a subscriber is in danger of being overtaken. */
const BEHIND = 0.5;

/** @param {import("../main.js").Context} context @returns {import("../main.js").View} */
export function subscribers(context) {
  const { status } = context;
  const samples = new Samples();
  let isShown = false;

  const stale = h("p", { class: "broker-note", "data-tone": "bad" });
  const waiting = h("p", { class: "muted" }, "Asking the broker…");
  const now = facts({
    total: "connected now", deliveries: "deliveries", bytes: "bytes delivered", opened: "new ones", groups: "different filters",
    all: "delivered since the start",
  });
  const since = h("p", { class: "muted" });
  const transports = table("By transport", ["Transport", "Now", "Trend"], { numbers: [1], isSlim: true });
  /** @type {Map<string, {number: HTMLElement, course: ReturnType<typeof trend>}>} */
  const ways = new Map();
  const connections = meter("Connections");
  const groups = h("p");
  const gaps = table("Gaps told, by reason", ["Reason", "Times", "What it means"], { numbers: [1] });
  const gapsNone = h("p", null, "None since the broker's start: nobody was told that anything is missing.");
  const closed = table("Connections that ended, by reason", ["Reason", "Times", "What it means"], { numbers: [1] });
  const closedNone = h("p", null, "None has ended since the broker's start.");
  const slowest = table("The subscribers furthest behind", ["Id", "Transport", "Connected", "Behind"], {
    numbers: [3], isSlim: true,
  });
  const slowestSays = h("p");

  const content = h("div", { class: "broker-content" },
    card("Now", now.element),
    h("div", { class: "broker-pair" },
      card("By transport", transports.element, since),
      card("Room", connections.element, groups)),
    card("The slowest", slowestSays, slowest.element),
    card("Gaps told: somebody missed something, and knows it", gapsNone, gaps.element),
    card("Why connections ended", closedNone, closed.element),
    h("p", { class: "muted" }, "The same for scripts: ", h("a", { href: "status" }, "/status"),
      ", and for Prometheus: ", h("a", { href: "metrics" }, "/metrics"), "."));
  content.hidden = true;
  const element = h("section", { class: "page", "aria-labelledby": "subscribers-title" },
    h("h1", { id: "subscribers-title" }, "Subscribers"), stale, waiting, content);

  let sampled = 0;
  status.watch(({ now: answer, at }) => {
    // The trend goes on while nobody looks.
    if (answer && at !== sampled) samples.add(at, { ...answer.subscribers.by_transport });
    sampled = at;
    draw();
  });

  return {
    element,
    show() {
      isShown = true;
      draw();
    },
    hide() {
      isShown = false;
    },
  };

  function draw() {
    if (!isShown) return;
    const { report } = status;
    const { now: answer, error, at } = report;
    stale.hidden = error === "";
    setText(stale, error === "" ? ""
      : `The broker does not answer: ${error}. ${answer ? `What is shown is from ${dateTime(at)}.` : ""}`);
    waiting.hidden = answer !== null || error !== "";
    content.hidden = answer === null;
    if (!answer) return;
    const its = answer.subscribers;
    const perSecond = (/** @type {(one: any) => number} */ counter) => rateOf(report, counter);
    const bytesRate = perSecond((one) => one.subscribers.delivered_bytes);
    now.set({
      total: count(its.total),
      deliveries: rate(perSecond((one) => one.subscribers.deliveries)),
      bytes: Number.isNaN(bytesRate) ? "–" : `${bytes(bytesRate)}/s`,
      opened: rate(perSecond((one) => one.subscribers.opened)),
      groups: count(its.groups),
      all: `${count(its.deliveries)} (${bytes(its.delivered_bytes)})`,
    });
    drawWays(its.by_transport);
    drawRoom(answer.limits);
    setText(groups, its.groups === 0 ? "Nobody reads, so there is no filter in use."
      : `${count(its.groups)} filter${its.groups === 1 ? " is" : "s are"} in use. ` +
        `Subscribers with the same one form a group and are served together.`);
    drawSlowest(its, answer.ring);
    drawReasons(gaps, gapsNone, its.gaps, gapWord);
    drawReasons(closed, closedNone, its.closed, closeWord);
  }

  /** @param {Record<string, number>} numbers by transport */
  function drawWays(numbers) {
    for (const [name, number] of Object.entries(numbers)) {
      let way = ways.get(name);
      if (!way) {
        way = { number: h("span"), course: trend() };
        transports.body.append(transports.row(transportWord(name), way.number, way.course.element));
        ways.set(name, way);
      }
      setText(way.number, count(number));
      const course = samples.values[name] ?? [];
      way.course.draw(course, `from ${count(course[0])} to ${count(number)}, ` +
        `at least ${count(Math.min(...course))}, at most ${count(Math.max(...course))}`);
    }
    setText(since, `The trend is since ${second(samples.times[0])}, when you first looked here; each is scaled to its own highest.`);
  }

  /** @param {any} limits */
  function drawRoom({ connections: open, connections_max: max, connections_per_ip_max: perIp }) {
    const part = open / max;
    const one = perIp === null ? "One address may have them all (limits.connections_per_ip_max is not set)."
      : `One address may have ${count(perIp)} (limits.connections_per_ip_max).`;
    connections.set(open, max, `${count(open)} of ${count(max)}`, part >= 1 ? "bad" : part >= NEARLY ? "warn" : "good",
      part >= NEARLY ? `Nearly full: raise limits.connections_max, and the limit of open files. ${one}`
        : `All that are open count: idle ones and this page's own too. ${one}`);
  }

  /**
   * @param {any} its
   * @param {any} ring
   */
  function drawSlowest({ slowest: list, total }, ring) {
    const worst = list[0]?.lag_events ?? 0;
    setText(slowestSays, total === 0 ? "Nobody is connected."
      : worst === 0 ? "Everybody is up to date."
        : worst > BEHIND * ring.events
          ? `The slowest is ${count(worst)} records behind, of ${count(ring.events)} that are held: ` +
            "soon the ring goes past it, and it gets a gap."
          : `The slowest is ${count(worst)} record${worst === 1 ? "" : "s"} behind. ` +
            `Nothing is lost as long as that is less than the ${count(ring.events)} held.`);
    slowest.element.hidden = list.length === 0;
    slowest.body.replaceChildren(...list.map((/** @type {any} */ one) => slowest.row(`#${one.id}`, transportWord(one.transport),
      duration(one.seconds * 1000), one.lag_events === 0 ? "up to date" : count(one.lag_events))));
  }

  /**
   * @param {ReturnType<typeof table>} target
   * @param {HTMLElement} none
   * @param {Record<string, number>} numbers by reason
   * @param {(reason: string) => string} word
   */
  function drawReasons({ element: where, body, row }, none, numbers, word) {
    const known = Object.entries(numbers).filter(([, number]) => number > 0).sort((a, b) => b[1] - a[1]);
    none.hidden = known.length > 0;
    where.hidden = known.length === 0;
    const text = JSON.stringify(known);
    if (where.dataset.text === text) return;
    where.dataset.text = text;
    body.replaceChildren(...known.map(([reason, number]) => row(reason, count(number), word(reason))));
  }
}
