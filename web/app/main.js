// The dashboard, put together: the stream into the store, the views by their address.

import * as address from "./page/address.js";
import { h, setText } from "./page/dom.js";
import { Feed } from "./data/feed.js";
import { openHelp } from "./page/help.js";
import { Status } from "./data/status.js";
import { Store } from "./data/store.js";
import { devices } from "./devices/view.js";
import { events } from "./events/view.js";
import { plots } from "./plots/view.js";
import { subscribers } from "./broker/subscribers.js";
import { tryIt } from "./try/view.js";
import { upstream } from "./broker/upstream.js";

/**
 * What a view is given.
 * @typedef {object} Context
 * @property {Store} store events and control rows
 * @property {Feed} feed the page's own stream
 * @property {Status} status the broker's
 * @property {(text: string) => void} announce tells people with a screen reader; for changes of state only
 */

/**
 * A view. It is made when it is first shown, and kept.
 * @typedef {object} View
 * @property {HTMLElement} element
 * @property {(params: URLSearchParams) => void} show it is on the screen, with these parameters; also when they change
 * @property {() => void} [hide] it is no longer on the screen
 * @property {(event: KeyboardEvent) => boolean} [key] a key outside of any field; true if it meant something
 */

/** @type {Record<string, {label: string, key: string, make: (context: Context) => View}>} */
const VIEWS = {
  events: { label: "Events", key: "e", make: events },
  plots: { label: "Plots", key: "p", make: plots },
  devices: { label: "Devices", key: "d", make: devices },
  upstream: { label: "Upstream", key: "u", make: upstream },
  subscribers: { label: "Subscribers", key: "s", make: subscribers },
  try: { label: "Try it", key: "t", make: tryIt },
};

/** @param {string} id */
const part = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

const store = new Store();
const status = new Status();
const feed = new Feed(store);
const context = { store, feed, status, announce };

/** @type {Record<string, View>} */
const made = {};
/** @type {View | null} */
let shown = null;
let awaitsView = false;

start();

async function start() {
  for (const [name, { label, key }] of Object.entries(VIEWS)) {
    part("nav").append(h("a", { href: address.link(name), id: `nav-${name}`, title: `${label} (g ${key})` }, label));
  }
  theme();
  part("help").addEventListener("click", openHelp);
  // By itself it would change the address, which is what is shown.
  document.querySelector(".skip")?.addEventListener("click", (event) => {
    event.preventDefault();
    part("main").focus();
  });
  addEventListener("keydown", key);
  address.watch(show);
  status.watch(chips);
  feed.watch(streamChip);
  show(address.read());
  await status.start();
  feed.start(status.report.now);
}

/** @param {address.Place} place */
function show({ view, params }) {
  const name = Object.hasOwn(VIEWS, view) ? view : "events";
  const next = (made[name] ??= VIEWS[name].make(context));
  if (next !== shown) {
    shown?.hide?.();
    part("main").replaceChildren(next.element);
    for (const link of part("nav").children) {
      if (link.id !== `nav-${name}`) link.removeAttribute("aria-current");
      else {
        link.setAttribute("aria-current", "page");
        link.scrollIntoView({ block: "nearest", inline: "nearest" });
      }
    }
    shown = next;
  }
  document.title = `${VIEWS[name].label} · Fanlight`;
  next.show(params);
}

/** @param {KeyboardEvent} event */
function key(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return;
  const target = /** @type {HTMLElement} */ (event.target);
  if (target.closest("input, textarea, select, [contenteditable]")) return;
  if (event.key === " " && target.closest("pre, [role=region]")) return; // It scrolls there.
  // Buttons and links keep their own meaning of these.
  if ((event.key === " " || event.key === "Enter") && target.closest("button, a, summary")) return;
  const name = awaitsView && Object.keys(VIEWS).find((name) => VIEWS[name].key === event.key);
  awaitsView = event.key === "g" && !awaitsView;
  if (name) address.go(name);
  else if (event.key === "?") openHelp();
  else if (!awaitsView && !shown?.key?.(event)) return;
  event.preventDefault();
}

/** @param {import("./data/status.js").Report} report */
function chips({ now, error }) {
  const chip = part("upstream-chip");
  const state = error ? "unreachable" : now.upstream.state;
  /** @type {Record<string, string>} */
  const tone = { live: "good", connecting: "warn", "backing-off": "warn", stalled: "warn", "rate-limited": "warn" };
  setText(chip, error ? "broker not reachable" : `cloud ${state}`);
  chip.dataset.tone = tone[state] ?? "bad";
  chip.title = error || now.upstream.detail || "The broker's connection to the cloud";
  if (chip.dataset.state && chip.dataset.state !== state) announce(chip.textContent ?? "");
  chip.dataset.state = state;
}

/** @param {import("../fanlight.js").State} state */
function streamChip({ state, transport }) {
  const chip = part("stream-chip");
  /** @type {Record<string, [string, string]>} */
  const words = {
    open: [transport === "sse" ? "receiving" : `receiving by ${transport === "poll" ? "long poll" : "WebSocket"}`, "good"],
    connecting: ["connecting…", "warn"],
    waiting: ["reconnecting…", "warn"],
    offline: ["this device is offline", "bad"],
    closed: ["closed", "bad"],
  };
  const [text, tone] = words[state] ?? [state, "warn"];
  setText(chip, text);
  chip.dataset.tone = tone;
}

/** @param {string} text */
function announce(text) {
  part("announce").textContent = text;
}

function theme() {
  const button = part("theme");
  const root = document.documentElement;
  /** @type {Record<string, [string, string]>} */
  const choices = { system: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };
  const paint = () => {
    const [sign, word] = choices[root.dataset.theme ?? "system"];
    button.textContent = sign;
    button.title = `Colours: ${word}`;
    button.setAttribute("aria-label", `Colours: ${word}. Change`);
  };
  button.addEventListener("click", () => {
    const names = Object.keys(choices);
    const next = names[(names.indexOf(root.dataset.theme ?? "system") + 1) % names.length];
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem("fanlight.theme", next);
    } catch {
      // Storage is switched off: it holds until the page is left.
    }
    dispatchEvent(new Event("themechange"));
    paint();
  });
  paint();
}
