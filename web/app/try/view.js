// A subscription, put together, written as programs and run in place. The address holds it:
// `#/try?transport=ndjson&prefix=greenhouse%2F&start=since&since=5m`; with `run=1` it starts.

import { base as baseAddress, replace } from "../page/address.js";
import { copies, h, setText } from "../page/dom.js";
import { publishing } from "./publish.js";
import { run } from "./run.js";
import { snippets } from "./snippets.js";
import { LISTS, listOf, subscriptionOf, tryLink, url } from "./subscription.js";
import { Tape } from "./tape.js";

/** @typedef {import("./subscription.js").Subscription} Subscription */

/** @type {Record<string, [string, string]>} label and explanation */
const LIST_WORDS = {
  prefix: ["Name begins with", "greenhouse/"],
  name: ["Name is", "door/state"],
  device: ["Device is", "e00fce68…"],
};
/** @type {[string, string][]} */
const TRANSPORTS = [["sse", "SSE"], ["ndjson", "NDJSON"], ["ws", "WebSocket"], ["poll", "Long poll"]];
/** @type {[string, string][]} */
const STARTS = [["now", "now"], ["since", "a while back"], ["earliest", "the oldest held"], ["position", "after a position"]];
/** @type {[string, string][]} */
const FORMATS = [["message", "message"], ["particle", "particle"]];

/** @param {import("../main.js").Context} context @returns {import("../main.js").View} */
export function tryIt(context) {
  const { announce } = context;
  const base = baseAddress();
  /** @type {(() => void) | null} */
  let stops = null;
  let language = "curl";
  let subscription = subscriptionOf(new URLSearchParams());

  // === the form ===

  const transports = choice("transport", "Transport", TRANSPORTS);
  const starts = choice("start", "Begin", STARTS);
  const lists = LISTS.map((name) => h("textarea", { id: `try-${name}`, rows: 2, spellcheck: "false", autocapitalize: "off", placeholder: LIST_WORDS[name][1] }));
  const since = h("input", { id: "try-since", spellcheck: "false", "aria-describedby": "try-since-help" });
  const position = h("input", { id: "try-position", spellcheck: "false", placeholder: "6n3k2ahq-1042" });
  const limit = h("input", { id: "try-limit", inputmode: "numeric", placeholder: "no end", spellcheck: "false" });
  const format = h("select", { id: "try-format" }, ...FORMATS.map(([value, label]) => h("option", { value }, label)));
  const snapshot = h("input", { type: "checkbox" });
  const control = h("input", { type: "checkbox" });
  const field = (/** @type {HTMLElement} */ input, /** @type {string} */ label, /** @type {string} */ help = "") =>
    h("div", { class: "field" }, h("label", { for: input.id }, label), input, help ? h("small", { class: "muted", id: `${input.id}-help` }, help) : null);
  const sinceField = field(since, "Since", "5m, 1h30m, or a time like 2026-11-22T01:00:00Z");
  const positionField = field(position, "Position", "the id of an event");
  const limitField = field(limit, "Number of events", "then it ends");
  const formatField = field(format, "Format", "particle: as the cloud sends it");
  const form = h("form", { class: "card try-form", "aria-label": "Subscription" },
    h("h2", null, "Subscription"),
    transports.element, starts.element, sinceField, positionField,
    h("div", { class: "try-lists" }, ...LISTS.map((name, i) => field(lists[i], LIST_WORDS[name][0]))),
    h("small", { class: "muted" }, "One a line. Empty means all."),
    h("div", { class: "try-more" }, limitField, formatField),
    h("div", { class: "try-checks" },
      h("label", null, snapshot, "First the newest value of each name and device"),
      h("label", null, control, "Tell of gaps and holes")));

  // === what it makes ===

  const address = h("code", { class: "try-url" });
  const tabs = h("div", { class: "wrap", role: "tablist", "aria-label": "Program" });
  const note = h("p", { class: "muted" });
  const code = h("pre", { class: "try-code", id: "try-code", role: "tabpanel", tabindex: "0" });
  const copyCode = copies(h("button", { type: "button" }, "Copy"), () => code.textContent ?? "");
  const copyUrl = copies(h("button", { type: "button" }, "Copy"), () => address.textContent ?? "");

  // === what comes ===

  const tape = new Tape();
  const button = h("button", { type: "button", class: "primary", onclick: () => (stops ? stop("Stopped.") : start()) }, "Start");
  const state = h("p", { class: "try-state", role: "status" });
  const running = h("section", { class: "card", "aria-labelledby": "try-run" },
    h("div", { class: "split" }, h("h2", { id: "try-run" }, "Run it here"), button),
    h("div", { class: "try-address" }, address, copyUrl),
    state, tape.element);
  const element = h("div", { class: "page try" },
    h("h1", { class: "unseen" }, "Try it"),
    form,
    h("div", { class: "try-side" },
      running,
      h("section", { class: "card", "aria-labelledby": "try-programs" },
        h("div", { class: "split" }, h("h2", { id: "try-programs" }, "As a program"), copyCode),
        tabs, note, code),
      publishing(context)));
  form.addEventListener("input", () => { gather(); });
  form.addEventListener("submit", (event) => { event.preventDefault(); start(); });
  state.hidden = true;
  tape.element.hidden = true;

  /** From the form to the address and the programs. */
  function gather() {
    const [prefix, name, device] = lists.map((list) => listOf(list.value));
    const params = new URLSearchParams(tryLink({
      transport: /** @type {any} */ (transports.value()), start: /** @type {any} */ (starts.value()),
      prefix, name, device, since: since.value.trim(), position: position.value.trim(),
      limit: limit.value.trim(), snapshot: snapshot.checked, control: control.checked, format: /** @type {any} */ (format.value),
    }).split(/\?(.*)/s)[1] ?? "");
    const changed = url(base, subscription);
    subscription = subscriptionOf(params);
    replace(tryLink(subscription));
    if (stops && url(base, subscription) !== changed) stop("Stopped, since the subscription changed.");
    write();
  }

  /** From the subscription to the form. */
  function fill() {
    transports.set(subscription.transport);
    starts.set(subscription.start);
    for (const [i, name] of LISTS.entries()) lists[i].value = subscription[name].join("\n");
    since.value = subscription.since;
    position.value = subscription.position;
    limit.value = subscription.limit;
    snapshot.checked = subscription.snapshot;
    control.checked = subscription.control;
    format.value = subscription.format;
  }

  function write() {
    sinceField.hidden = subscription.start !== "since";
    positionField.hidden = subscription.start !== "position";
    formatField.hidden = subscription.transport !== "sse";
    // A poll ends by itself: there the limit is of one answer.
    const isPoll = subscription.transport === "poll";
    limit.placeholder = isPoll ? "500" : "no end";
    setText(/** @type {Element} */ (limitField.lastElementChild), isPoll ? "at most, in one answer" : "then it ends");
    setText(address, url(base, subscription));
    const all = snippets(subscription, base);
    const chosen = all.find(({ id }) => id === language) ?? all[0];
    if (tabs.childElementCount === 0) tabs.append(...all.map(({ id, label }) => tab(id, label)));
    for (const one of tabs.children) {
      const isChosen = one.id === `try-tab-${chosen.id}`;
      one.setAttribute("aria-selected", String(isChosen));
      one.setAttribute("tabindex", isChosen ? "0" : "-1");
    }
    code.setAttribute("aria-labelledby", `try-tab-${chosen.id}`);
    setText(note, chosen.note);
    setText(code, chosen.text);
  }

  /** @param {string} id @param {string} label */
  function tab(id, label) {
    const made = h("button", { type: "button", role: "tab", id: `try-tab-${id}`, "aria-controls": "try-code" }, label);
    made.addEventListener("click", () => { language = id; write(); });
    made.addEventListener("keydown", (event) => {
      const all = /** @type {HTMLElement[]} */ ([...tabs.children]);
      const here = all.indexOf(made);
      const next = { ArrowRight: here + 1, ArrowLeft: here - 1 + all.length, Home: 0, End: all.length - 1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      all[next % all.length].click();
      all[next % all.length].focus();
    });
    return made;
  }

  function start() {
    stops?.();
    tape.element.hidden = false;
    tape.start();
    say("connecting…");
    button.textContent = "Stop";
    stops = run(subscription, base, {
      line: (text) => tape.line(text),
      came: (events, bytes) => tape.came(events, bytes),
      state: (text) => say(text),
      end: (text, failed) => stop(text, failed),
    });
  }

  /** @param {string} text @param {boolean} [failed] */
  function stop(text, failed = false) {
    stops?.();
    stops = null;
    tape.stop();
    button.textContent = "Start";
    say(text, failed);
  }

  /** @param {string} text @param {boolean} [failed] */
  function say(text, failed = false) {
    state.hidden = false;
    setText(state, failed ? `Failed. ${text}` : text);
    if (failed) state.dataset.tone = "bad";
    else delete state.dataset.tone;
  }

  return {
    element,
    show(params) {
      // The bare address means what the form says.
      if ([...params.keys()].some((key) => key !== "run")) subscription = subscriptionOf(params);
      if (stops) stop("Stopped.");
      fill();
      write();
      replace(tryLink(subscription));
      if (params.get("run") === "1") {
        start();
        announce("Started");
        // On a narrow screen what comes is below the form.
        running.scrollIntoView({ block: "nearest" });
      }
    },
    hide() {
      // A browser has few connections to one origin: this one is given back.
      if (stops) stop("Stopped when you left this view.");
    },
  };
}

/**
 * One of a few, as radio buttons.
 * @param {string} name
 * @param {string} label
 * @param {[string, string][]} options
 */
function choice(name, label, options) {
  const inputs = options.map(([value]) => h("input", { type: "radio", name: `try-${name}`, value }));
  return {
    element: h("fieldset", null, h("legend", null, label),
      h("div", { class: "try-choice" }, ...options.map(([, text], i) => h("label", null, inputs[i], text)))),
    value: () => inputs.find((input) => input.checked)?.value ?? options[0][0],
    set: (/** @type {string} */ value) => {
      for (const input of inputs) input.checked = input.value === value;
    },
  };
}
