// Numbers of events over time. The address says which, and which time:
// `#/plots?s=greenhouse%2Ftemp&s=battery%7Cv&w=15m`, or `from` and `to` where zoomed.
// A link with `add` adds one to those that are there.

import * as address from "../page/address.js";
import { Breaks } from "./breaks.js";
import { h, setText } from "../page/dom.js";
import * as format from "../page/format.js";
import { Picker } from "./picker.js";
import { Plot } from "./plot.js";
import { SOURCES_MAX, Series, sourceOf, sourceText, timeOf } from "./series.js";

/** Time between two pictures. */
const INTERVAL_MS = 350;
/** Rows of the past that are searched for numbers, once. */
const SEARCHED_ROWS_MAX = 5_000;
/** Breaks described below the picture. */
const BREAKS_LISTED_MAX = 8;
/** As near as one can zoom. */
const ZOOM_MIN_MS = 1_000;
/** The times a calendar knows, on either side of 1970: as far as one can. */
const TIME_MAX_MS = 8.64e15;

/** @type {[string, string, number][]} in the address, for people, in milliseconds */
const WINDOWS = [["5m", "5 min", 300_000], ["15m", "15 min", 900_000], ["1h", "1 h", 3_600_000], ["all", "All", Infinity]];
const WINDOW = "15m";

/** @param {import("../main.js").Context} context @returns {import("../main.js").View} */
export function plots({ store, feed, status, announce }) {
  /** @type {Plot[]} */
  let shown = [];
  /** @type {Map<Plot, number>} number of the row that each plot takes next */
  const taken = new Map();
  let breaks = new Breaks();
  let takenAll = 0;
  let window_ = WINDOW;
  /** @type {{from: number, to: number} | null} */
  let zoom = null;
  let cursor = NaN;
  let timer = 0;
  let isAdding = false;
  let described = "";

  const windows = WINDOWS.map(([key, label]) =>
    h("button", { type: "button", onclick: () => { window_ = key; zoom = null; write(); paint(); } }, label));
  const reset = h("button", { type: "button", onclick: unzoom }, "Reset zoom");
  const adding = h("button", { type: "button", "aria-expanded": "false", onclick: () => { isAdding = !isAdding; paint(); } }, "Add a number");
  const span = h("span", { class: "muted plots-span" });
  const picker = new Picker((text) => {
    add(text);
    write();
    paint();
    announce("Plot added");
  });
  const stack = h("div", { class: "plots-stack" });
  const missing = h("details", { class: "card plots-missing" });
  const toolbar = h("div", { class: "plots-bar" },
    h("div", { class: "wrap", role: "group", "aria-label": "Time shown" }, ...windows),
    h("div", { class: "wrap", role: "group", "aria-label": "Zoom" },
      h("button", { type: "button", "aria-label": "Zoom in", title: "Zoom in (+)", onclick: () => zoomBy(0.5) }, "+"),
      h("button", { type: "button", "aria-label": "Zoom out", title: "Zoom out (−)", onclick: () => zoomBy(2) }, "−"),
      reset),
    span, adding);
  const held = h("span");
  const older = h("p", { class: "muted plots-older", hidden: true }, held, h("button", { type: "button", onclick: () => {
    feed.restart(status.report.now);
    older.hidden = true;
  } }, "Load all that the broker holds"));
  const heading = h("h1", null, "Plots");
  const element = h("div", { class: "page plots" }, heading, toolbar, older, picker.element, stack, missing);

  // === what is shown ===

  /** @param {string} text */
  function add(text) {
    if (shown.some((plot) => sourceText(plot.series.source) === text)) return;
    if (shown.length >= SOURCES_MAX) {
      announce(`No more than ${SOURCES_MAX} plots fit: remove one first.`);
      picker.say(`No more than ${SOURCES_MAX} plots fit: remove one first.`);
      return;
    }
    const plot = new Plot(new Series(sourceOf(text)), {
      remove, move, zoom: zoomTo, reset: unzoom,
      pin: (device) => { add(sourceText({ ...plot.series.source, device })); write(); paint(); shown.at(-1)?.element.scrollIntoView({ block: "nearest" }); },
      cursor: (time) => { cursor = time; plot.cursor(time); },
      key: keyOnChart,
    });
    taken.set(plot, 0);
    shown.push(plot);
    stack.append(plot.element);
    sight.observe(plot.element);
  }

  /** @param {Plot} plot */
  function remove(plot) {
    const index = shown.indexOf(plot);
    drop(plot);
    write();
    paint();
    announce("Plot removed");
    const next = shown[Math.min(index, shown.length - 1)];
    (next?.up ?? picker.search).focus();
  }

  /** @param {Plot} plot */
  function drop(plot) {
    sight.unobserve(plot.element);
    plot.close();
    taken.delete(plot);
    shown = shown.filter((one) => one !== plot);
  }

  /** @param {Plot} plot @param {number} by */
  function move(plot, by) {
    const from = shown.indexOf(plot);
    const to = from + by;
    if (to < 0 || to >= shown.length) return;
    shown.splice(from, 1);
    shown.splice(to, 0, plot);
    if (by < 0) stack.insertBefore(plot.element, shown[to + 1].element);
    else stack.insertBefore(shown[to - 1].element, plot.element);
    write();
    paint();
    const button = by < 0 ? plot.up : plot.down;
    (button.disabled ? (by < 0 ? plot.down : plot.up) : button).focus();
  }

  function write() {
    const params = new URLSearchParams(shown.map((plot) => ["s", sourceText(plot.series.source)]));
    if (window_ !== WINDOW) params.set("w", window_);
    if (zoom) {
      params.set("from", String(Math.round(zoom.from)));
      params.set("to", String(Math.round(zoom.to)));
    }
    address.replace(address.link("plots", params));
  }

  /** @param {URLSearchParams} params */
  function readAddress(params) {
    if ([...params.keys()].some((key) => key !== "add")) {
      const wanted = params.getAll("s").map((text) => sourceText(sourceOf(text)));
      for (const plot of shown.filter((plot) => !wanted.includes(sourceText(plot.series.source)))) drop(plot);
      wanted.forEach(add);
      const place = (/** @type {Plot} */ plot) => wanted.indexOf(sourceText(plot.series.source));
      shown.sort((a, b) => place(a) - place(b));
      stack.append(...shown.map((plot) => plot.element));
      window_ = WINDOWS.find(([key]) => key === params.get("w"))?.[0] ?? WINDOW;
      const [from, to] = [Number(params.get("from") ?? NaN), Number(params.get("to") ?? NaN)];
      zoom = to > from && Math.abs(from) <= TIME_MAX_MS && Math.abs(to) <= TIME_MAX_MS ? { from, to } : null;
    }
    const asked = params.getAll("add");
    asked.map((text) => sourceText(sourceOf(text))).forEach(add);
    if (asked.length) isAdding = false;
    write();
  }

  // === time ===

  /** What time it is for the cloud, as far as the broker knows. */
  function now() {
    const { now, at } = status.report;
    const then = Date.parse(now?.now ?? "");
    return Number.isFinite(then) ? then + Date.now() - at : Date.now();
  }

  function range() {
    if (zoom) return zoom;
    const spans = shown.map((plot) => plot.series.span());
    const to = Math.max(now(), ...spans.map((span) => span.to).filter((time) => time - now() < 60_000));
    const length = WINDOWS.find(([key]) => key === window_)?.[2] ?? Infinity;
    if (Number.isFinite(length)) return { from: to - length, to };
    const from = Math.min(...spans.map((span) => span.from));
    const end = Math.max(to, ...spans.map((span) => span.to));
    return { from: Number.isFinite(from) ? Math.min(from, end - 60_000) : end - 900_000, to: end };
  }

  /** @param {number} from @param {number} to */
  function zoomTo(from, to) {
    const middle = (from + to) / 2;
    const half = Math.max(to - from, ZOOM_MIN_MS) / 2;
    zoom = { from: Math.max(middle - half, -TIME_MAX_MS), to: Math.min(middle + half, TIME_MAX_MS) };
    write();
    paint();
  }

  /** @param {number} factor */
  function zoomBy(factor) {
    const { from, to } = range();
    const around = cursor >= from && cursor <= to ? cursor : (from + to) / 2;
    zoomTo(around - (around - from) * factor, around + (to - around) * factor);
  }

  function unzoom() {
    if (!zoom) return;
    zoom = null;
    write();
    paint();
  }

  /** @param {KeyboardEvent} event */
  function keyOnChart(event) {
    const { from, to } = range();
    const step = ((to - from) / 100) * (event.shiftKey ? 10 : 1);
    const at = cursor >= from && cursor <= to ? cursor : to;
    const target = { ArrowLeft: at - step, ArrowRight: at + step, Home: from, End: to }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target !== undefined) {
      cursor = Math.min(Math.max(target, from), to);
      for (const plot of shown) plot.point(cursor);
    } else if (event.key === "+" || event.key === "=") zoomBy(0.5);
    else if (event.key === "-") zoomBy(2);
    else if (event.key === "0" || event.key === "Escape") unzoom();
    else return;
    event.preventDefault();
  }

  // === pictures ===

  function take() {
    const { first, next } = store;
    for (const [plot, from] of taken) {
      for (let n = Math.max(from, first); n < next; n += 1) plot.series.take(/** @type {import("../data/store.js").Row} */ (store.at(n)));
      plot.series.forget(first);
      taken.set(plot, next);
    }
    for (let n = Math.max(takenAll, first); n < next; n += 1) {
      const row = /** @type {import("../data/store.js").Row} */ (store.at(n));
      breaks.take(row);
      if (next - n <= SEARCHED_ROWS_MAX) picker.lately.take(row);
    }
    breaks.forget(first);
    takenAll = next;
  }

  function paint() {
    if (document.hidden) return;
    take();
    const { from, to } = range();
    const at = now();
    for (const plot of shown) {
      if (plot.isSeen) plot.draw(from, to, breaks, at);
    }
    for (const [i, button] of windows.entries()) button.setAttribute("aria-pressed", String(!zoom && WINDOWS[i][0] === window_));
    for (const [i, plot] of shown.entries()) {
      plot.up.disabled = i === 0;
      plot.down.disabled = i === shown.length - 1;
    }
    reset.disabled = !zoom;
    toolbar.hidden = shown.length === 0;
    picker.welcome.hidden = shown.length > 0;
    heading.classList.toggle("unseen", shown.length > 0);
    adding.setAttribute("aria-expanded", String(isAdding));
    picker.element.hidden = shown.length > 0 && !isAdding;
    const oldest = store.at(store.first);
    older.hidden = !(shown.length > 0 && feed.hasOlder && oldest && from < timeOf(oldest));
    if (oldest) setText(held, `This page holds what came since ${format.dateTime(timeOf(oldest))}.`);
    setText(span, `${format.dateTime(from)} – ${format.second(to)}${zoom ? ", zoomed" : ""}`);
    picker.paint();
    describe(from, to);
  }

  /** @param {number} from @param {number} to what is shaded there, in words */
  function describe(from, to) {
    const there = shown.length > 0 ? breaks.between(from, to) : [];
    missing.hidden = there.length === 0;
    const key = there.map((one) => `${one.n} ${one.to}`).join();
    if (key === described) return;
    described = key;
    const lines = there.slice(-BREAKS_LISTED_MAX).reverse().map(({ kind, from, text }) =>
      h("li", null, `${kind}${Number.isFinite(from) ? ` at ${format.dateTime(from)}` : " at the beginning"}: ${text}`));
    missing.replaceChildren(
      h("summary", null, `Shaded: ${there.length} ${there.length === 1 ? "time" : "times"} when something is missing`),
      h("ul", null, ...lines),
      there.length > lines.length ? h("p", { class: "muted" }, `and ${there.length - lines.length} older`) : "");
  }

  // Rows were forgotten by wish: what is there now is taken anew.
  store.watch(({ cleared, first }) => {
    if (!cleared) return;
    breaks = new Breaks();
    picker.lately.clear();
    takenAll = first;
    for (const plot of shown) {
      plot.series.clear();
      taken.set(plot, first);
    }
  });

  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const plot = shown.find((plot) => plot.element === target);
      if (plot) plot.isSeen = isIntersecting;
    }
  }, { rootMargin: "200px" });
  const recolour = () => shown.forEach((plot) => plot.recolour());
  addEventListener("themechange", recolour);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);

  return {
    element,
    show(params) {
      readAddress(params);
      paint();
      if (!timer) timer = setInterval(paint, INTERVAL_MS);
    },
    hide() {
      clearInterval(timer);
      timer = 0;
    },
  };
}
