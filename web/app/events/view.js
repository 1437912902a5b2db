// The live list: what devices publish as it comes, filtered, held still on request, with
// what is missing in its place.

import * as address from "../page/address.js";
import { h, setText } from "../page/dom.js";
import { rowOf } from "../data/event.js";
import { before, Drawer } from "./drawer.js";
import { parse } from "./filter.js";
import { count, duration, line, time } from "../page/format.js";
import { List } from "./list.js";
import { Matches } from "./matches.js";
import { welcome } from "./welcome.js";

/** @typedef {import("../data/store.js").Row} Row */

/** Characters of data in one line. */
const DATA_CHARS_MAX = 300;
/** Time after the last letter until the filter is applied. */
const TYPING_MS = 120;

/**
 * @param {import("../main.js").Context} context
 * @returns {import("../main.js").View}
 */
export function events({ store, feed, status, announce, ...rest }) {
  const matches = new Matches(store);
  let isShown = false;
  let isApplied = false;
  let frame = 0;
  /** Id of the event that a link asked for last, until another is shown. */
  let wanted = "";

  const field = h("input", {
    type: "search", id: "filter", class: "filter-field", autocomplete: "off", spellcheck: "false", autocapitalize: "off",
    placeholder: "Filter: name:temp/*  device:…  text  data.t>30", "aria-label": "Filter events", "aria-describedby": "filter-problems",
  });
  const problems = h("p", { id: "filter-problems", class: "filter-problems" });
  const pause = h("button", { type: "button", class: "pause", "aria-pressed": "false", title: "Pause (Space)" }, "Pause");
  const shown = h("span", { class: "muted shown-count" });
  // Two signs that the list stands still: one that cannot be overlooked, one beside the point.
  const paused = h("button", { type: "button", class: "paused", hidden: true, onclick: follow });
  const waits = h("button", { type: "button", class: "waits", hidden: true, onclick: follow });
  const older = h("button", { type: "button", hidden: true }, "Load all the broker holds");

  const list = new List({
    label: "Events, newest first",
    head: h("div", { class: "row", role: "row", "aria-rowindex": 1 },
      ...["Name", "Data", "Device", "Published", "Delay"].map((label) => h("span", { role: "columnheader", class: label.toLowerCase() }, label))),
    source: {
      count: (top) => matches.count(top),
      row: (place, top) => store.at(matches.at(place, top)),
      placeOf: (n, top) => matches.placeOf(n, top),
      newest: () => matches.newest,
    },
    make: emptyRow,
    paint: paintRow,
    chosen,
    held: sayHeld,
  });
  const drawer = new Drawer(closeDrawer);
  const first = welcome({ store, feed, status, announce, ...rest });
  const stage = h("div", { class: "stage" }, list.element, drawer.element, waits);
  const element = h("section", { class: "events", "aria-label": "Events" },
    h("h1", { class: "unseen" }, "Events"),
    h("div", { class: "tools" }, field, pause, shown, older, problems), first.element, paused, stage);

  let typing = 0;
  field.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      address.amend({ q: field.value });
      apply();
    }, TYPING_MS);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" && event.key !== "Enter") return;
    // By itself Escape would empty the field.
    event.preventDefault();
    list.element.focus();
  });
  pause.addEventListener("click", togglePause);
  older.addEventListener("click", () => {
    older.hidden = true;
    follow();
    feed.restart(status.report.now);
  });
  list.element.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    list.step(step);
    event.preventDefault();
  });

  store.watch((news) => {
    matches.take(news);
    // What it stood still at is gone.
    if (news.cleared) list.follow();
    if (isShown) update();
  });

  function apply() {
    isApplied = true;
    const { test, problems: found } = parse(field.value);
    field.setAttribute("aria-invalid", String(found.length > 0));
    setText(problems, found.join(" · "));
    matches.filter(test);
    list.reset();
    update();
  }

  function update() {
    const isEmpty = !store.hasEvents;
    first.element.hidden = !isEmpty;
    stage.hidden = isEmpty;
    if (isEmpty) return;
    list.update();
    const passing = matches.count(Infinity);
    const all = passing === store.size && !field.value;
    const looking = matches.isLooking ? "looking… " : "";
    setText(shown, all ? `${count(store.size)} rows` : `${looking}${count(passing)} of ${count(store.size)} rows`);
    older.hidden = !feed.hasOlder;
    if (list.hold) sayHeld();
    if (matches.isLooking && !frame) {
      frame = requestAnimationFrame(() => {
        frame = 0;
        matches.look();
        if (isShown) update();
      });
    }
  }

  function sayHeld() {
    const waiting = list.hold ? matches.newerThan(list.top) : 0;
    const news = `${count(waiting)} new`;
    pause.setAttribute("aria-pressed", String(list.paused));
    setText(pause, list.paused ? "Resume" : "Pause");
    element.classList.toggle("is-paused", list.paused);
    paused.hidden = !list.paused;
    setText(paused, `Paused · ${news} · press here or Space to go on`);
    waits.hidden = list.paused || waiting === 0;
    setText(waits, `↑ ${news}`);
    if (isShown) document.title = list.paused ? `⏸ ${news} · Fanlight` : "Events · Fanlight";
  }

  function follow() {
    list.follow();
    list.element.focus();
  }

  function togglePause() {
    if (list.paused) list.follow();
    else list.paused = true;
    announce(list.paused ? "Paused. Events go on coming." : "Showing the newest events.");
  }

  /** @param {number} n @param {boolean} opens */
  function chosen(n, opens) {
    const row = store.at(n);
    wanted = "";
    if (!row) {
      drawer.show(null);
      address.amend({ id: null });
    } else if (opens || drawer.isOpen) {
      drawer.show(row);
      address.amend({ id: row.id });
    }
  }

  function closeDrawer() {
    list.choose(-1);
    list.element.focus();
  }

  /** Shows the event a link leads to: the broker is asked, since the page may not hold it. @param {string} id */
  async function openLinked(id) {
    wanted = id;
    let problem = "The event this link leads to is no longer in the broker's memory.";
    /** @type {any} */
    let event;
    try {
      const after = before(id);
      const answer = after && await fetch(`poll?${new URLSearchParams({ after, limit: "1", timeout: "0" })}`, { cache: "no-store" });
      if (answer) event = (await answer.json()).events.find((/** @type {any} */ one) => one.id === id && !one.fanlight);
    } catch {
      problem = "The event this link leads to could not be read from the broker.";
    }
    // Meanwhile the reader may have gone on.
    if (wanted !== id) return;
    if (event) drawer.show({ n: -1, ...rowOf(event, NaN) });
    else {
      announce(problem);
      setText(problems, problem);
    }
  }

  return {
    element,
    show(params) {
      isShown = true;
      const q = params.get("q") ?? "";
      if (q !== field.value || !isApplied) {
        field.value = q;
        apply();
      }
      const id = params.get("id") ?? "";
      if (id && id !== drawer.id) openLinked(id);
      else if (!id && drawer.isOpen) closeDrawer();
      update();
      sayHeld();
    },
    hide() {
      isShown = false;
      // What was typed last is not for the address of another view.
      clearTimeout(typing);
    },
    key(event) {
      switch (event.key) {
        case "/": field.focus(); field.select(); return true;
        case " ": togglePause(); return true;
        case "j": list.step(1); return true;
        case "k": list.step(-1); return true;
        case "Enter":
          if (list.chosen < 0) return false;
          list.choose(list.chosen, true);
          drawer.focus();
          return true;
        case "Escape":
          if (drawer.isOpen || list.chosen >= 0) closeDrawer();
          else if (list.hold) list.follow();
          return true;
        default: return false;
      }
    },
  };
}

function emptyRow() {
  return h("div", { class: "row", role: "row" },
    ...["name", "data", "device", "published", "delay"].map((part) => h("span", { role: "gridcell", class: part })));
}

/**
 * @param {HTMLElement} element
 * @param {Row} row
 */
function paintRow(element, row) {
  const [name, data, device, published, delay] = element.children;
  const late = row.received - row.published;
  element.dataset.kind = row.kind;
  setText(name, line(row.name, 120));
  setText(data, line(row.data, DATA_CHARS_MAX));
  setText(device, line(row.device, 40));
  setText(published, time(row.published));
  setText(delay, row.kind === "event" ? duration(late) : "");
}
