// The devices: who speaks, who fell silent, and what each said last.
//
// Law: the model takes in every event, so many a frame; what is on the screen is drawn twice
// a second, a page of entries at most.

import * as address from "../page/address.js";
import { h, setText } from "../page/dom.js";
import { Entry, TONES } from "./entry.js";
import {
  DEVICES_MAX, MINUTES, NAMES_MAX, PAUSES_MAX, PAUSES_MIN, RECENT_MS, SILENT_FACTOR, SILENT_MIN_MS, STATES,
} from "./fleet.js";
import { count, duration } from "../page/format.js";
import { Hearing } from "./hearing.js";

/** Entries on a page. */
const PAGE_SIZE = 50;
/** Time between two drawings: people do not read faster. */
const PAINT_MS = 500;
/** Time between two sortings. */
const SORT_MS = 2_000;

/** @type {[string, string][]} */
const SORTS = [
  ["state", "state, silent first"],
  ["newest", "heard last"],
  ["oldest", "quiet longest"],
  ["rate", "most events"],
  ["id", "id"],
];

/** @param {import("../main.js").Context} context @returns {import("../main.js").View} */
export function devices(context) {
  const hearing = new Hearing(context, (isNew) => {
    if (isNew) forgetEntries();
    wake();
  });
  let frame = 0;
  let timer = 0;
  let sortedAt = 0;
  let drawnAt = 0;
  let page = 0;
  /** @type {import("./fleet.js").Device[]} */
  let shown = [];
  /** @type {Map<string, Entry>} */
  let entries = new Map();
  const wish = { text: "", state: "", sort: "state" };

  const search = h("input", {
    type: "search", placeholder: "id or event name", autocomplete: "off", spellcheck: "false", maxlength: 200,
    oninput: () => change({ q: search.value }),
  });
  const sort = h("select", { onchange: () => change({ sort: sort.value === "state" ? null : sort.value }) },
    ...SORTS.map(([value, label]) => h("option", { value }, label)));
  /** @type {Record<string, {button: HTMLButtonElement, number: HTMLElement}>} */
  const chosen = {};
  for (const state of ["", ...STATES]) {
    const number = h("strong", null, "0");
    const { title } = TONES[/** @type {"seen"} */ (state)] ?? {};
    const button = h("button", { type: "button", onclick: () => change({ state }), title }, state || "all", number);
    chosen[state] = { button, number };
  }
  const notes = h("div", { class: "device-notes" });
  const seedText = h("span");
  const seedNote = note(seedText, h("button", { type: "button", onclick: () => hearing.seed() }, "Ask again"));
  const deafNote = note("This page hears nothing from the devices at present: states are as they were when it stopped. ",
    h("a", { href: "#/upstream" }, "Why"));
  const fullText = h("span");
  const fullNote = note(fullText);
  notes.append(seedNote, deafNote, fullNote);
  const body = h("tbody", { role: "rowgroup" });
  const table = h("table", { class: "devices", role: "table", "aria-label": "Devices" },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" },
      ...["Device", "State", "Last heard", `Last ${MINUTES} minutes`, "Newest value"].map((text) =>
        h("th", { scope: "col", role: "columnheader" }, text)))),
    body);
  const empty = h("div", { class: "device-empty" });
  const held = h("span", { class: "muted" });
  const range = h("span", { class: "muted" });
  const back = h("button", { type: "button", onclick: () => turn(page - 1) }, "← Previous");
  const forth = h("button", { type: "button", onclick: () => turn(page + 1) }, "Next →");
  const element = h("section", { class: "page device-page", "aria-labelledby": "devices-title" },
    h("h1", { id: "devices-title" }, "Devices"),
    h("div", { class: "wrap" },
      h("div", { class: "wrap", role: "group", "aria-label": "State" },
        ...Object.values(chosen).map(({ button }) => button)),
      h("label", null, "Filter", search),
      h("label", null, "Sort by", sort)),
    notes,
    h("div", { class: "card device-card" }, table, empty),
    h("div", { class: "split device-pager" }, range, held, h("div", { class: "wrap" }, back, forth)),
    explained());

  wake();
  return { element, show, hide, key };

  /** @param {URLSearchParams} params */
  function show(params) {
    wish.text = params.get("q") ?? "";
    const state = params.get("state") ?? "";
    wish.state = Object.hasOwn(chosen, state) ? state : "";
    const by = params.get("sort") ?? "state";
    wish.sort = SORTS.some(([value]) => value === by) ? by : "state";
    page = Math.max(0, (Number.parseInt(params.get("page") ?? "1", 10) || 1) - 1);
    if (search.value !== wish.text) search.value = wish.text;
    sort.value = wish.sort;
    for (const [name, { button }] of Object.entries(chosen)) {
      button.setAttribute("aria-pressed", String(name === wish.state));
    }
    sortedAt = 0;
    if (!timer) timer = setInterval(wake, PAINT_MS);
    wake();
  }

  function hide() {
    clearInterval(timer);
    timer = 0;
  }

  /** @param {KeyboardEvent} event */
  function key(event) {
    if (event.key !== "/") return false;
    search.focus();
    return true;
  }

  /** @param {Record<string, string | null>} changes */
  function change(changes) {
    address.amend({ ...changes, page: null });
    show(address.read().params);
  }

  /** @param {number} to */
  function turn(to) {
    address.amend({ page: to > 0 ? String(to + 1) : null });
    show(address.read().params);
    element.scrollIntoView();
  }

  function wake() {
    if (!frame) frame = requestAnimationFrame(step);
  }

  function step() {
    frame = 0;
    if (hearing.step()) wake();
    // News wake it once a frame, the timer wakes it in time.
    if (timer && (sortedAt === 0 || performance.now() - drawnAt >= PAINT_MS / 2)) draw();
  }

  function draw() {
    drawnAt = performance.now();
    const at = hearing.clock();
    if (at.now - sortedAt >= SORT_MS) arrange(at);
    for (const entry of entries.values()) entry.paint(at, hearing.fleet.since);
    deafNote.hidden = !hearing.isDeaf;
    seedNote.hidden = hearing.seedError === "";
    setText(seedText, seedNote.hidden ? "" : "Devices that said nothing since this page came are missing: " +
      `the newest values could not be read (${hearing.seedError}). `);
  }

  /** @param {import("./fleet.js").Clock} at */
  function arrange(at) {
    const isAsked = sortedAt === 0;
    sortedAt = at.now;
    const { fleet } = hearing;
    const { counts, shown: found } = fleet.list(wish, at);
    let all = 0;
    for (const state of STATES) {
      setText(chosen[state].number, count(counts[state]));
      all += counts[state];
    }
    setText(chosen[""].number, count(all));
    const isFull = all >= DEVICES_MAX;
    fullNote.hidden = !isFull;
    setText(fullText, !isFull ? "" : `${count(DEVICES_MAX)} devices are as many as this page keeps. ` +
      `Further ones are not shown; they sent ${count(fleet.refused)} events.`);
    // Nothing moves away from under a pointer or the keyboard's place.
    const isHeld = !isAsked && entries.size > 0 &&
      (body.contains(document.activeElement) || (matchMedia("(hover: hover)").matches && body.matches(":hover")));
    const pages = Math.max(1, Math.ceil(found.length / PAGE_SIZE));
    page = Math.min(page, pages - 1);
    const from = page * PAGE_SIZE;
    const list = found.slice(from, from + PAGE_SIZE);
    const isSame = list.length === shown.length && list.every((device, i) => device === shown[i]);
    setText(held, isHeld && !isSame ? "The order waits while you are in the list." : "");
    if (!isHeld && !isSame) place(list);
    setText(range, found.length === 0 ? "" : `${count(from + 1)}–${count(from + list.length)} of ${count(found.length)}`);
    back.disabled = page === 0;
    forth.disabled = page >= pages - 1;
    table.hidden = found.length === 0;
    empty.hidden = found.length > 0;
    if (found.length === 0) sayEmpty(all, fleet.nameless);
  }

  /** @param {import("./fleet.js").Device[]} list */
  function place(list) {
    /** @type {Map<string, Entry>} */
    const kept = new Map();
    for (const device of list) kept.set(device.id, entries.get(device.id) ?? new Entry(device));
    entries = kept;
    shown = list;
    // Only what is in another place is moved: the rest costs nothing.
    const wanted = [...entries.values()].flatMap(({ elements }) => elements);
    const staying = new Set(wanted);
    for (const row of [...body.rows]) if (!staying.has(row)) row.remove();
    let at = body.firstElementChild;
    for (const row of wanted) {
      if (row === at) at = at.nextElementSibling;
      else body.insertBefore(row, at);
    }
  }

  function forgetEntries() {
    entries = new Map();
    shown = [];
    sortedAt = 0;
    body.replaceChildren();
  }

  /**
   * @param {number} all devices
   * @param {number} nameless events that name none
   */
  function sayEmpty(all, nameless) {
    const text = all > 0 ? "No device matches."
      : nameless > 0
        ? `${count(nameless)} events came, but none names a device. A device is known by the field “coreid” of its events.`
        : "No device has been heard yet.";
    if (empty.textContent?.startsWith(text)) return;
    empty.replaceChildren(h("p", null, text),
      ...(all > 0
        ? [h("button", { type: "button", onclick: () => change({ q: null, state: null }) }, "Show all")]
        : [h("p", null, h("a", { href: "#/events" }, "What is connected, and what is missing"))]));
  }
}

/** @param {...import("../page/dom.js").Child} children */
function note(...children) {
  const element = h("p", { class: "device-note", "data-tone": "warn" }, ...children);
  element.hidden = true;
  return element;
}

function explained() {
  return h("details", { class: "card device-how" },
    h("summary", null, "How this is judged"),
    h("dl", null,
      h("dt", null, "online"), h("dd", null, "Heard within its usual time, by any event."),
      h("dt", null, "silent"), h("dd", null,
        `Quiet for more than ${SILENT_FACTOR} times its usual longest pause, and for ${duration(SILENT_MIN_MS)} at least. ` +
        `The usual longest pause is the second longest of its last ${PAUSES_MAX}; events within a second are one sign of life. ` +
        "Time without a connection to the cloud does not count, nor do pauses across a hole or a gap."),
      h("dt", null, "offline"), h("dd", null,
        "Its newest event is “spark/status” with “offline”. The cloud notices late: on cellular it can take most of an hour."),
      h("dt", null, "seen"), h("dd", null,
        `Fewer than ${PAUSES_MIN} pauses known, and nothing heard for ${duration(RECENT_MS)}: too little to say more.`)),
    h("p", { class: "muted" },
      `Each sparkline is scaled to its own busiest minute. At most ${count(DEVICES_MAX)} devices are kept, and of each the ` +
      `${NAMES_MAX} event names heard last. Times of events from before this page came are the cloud's.`));
}
