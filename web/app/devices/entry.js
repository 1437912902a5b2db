// A device as an entry of the list: a row, and behind it its details.
//
// Law: what devices sent is text. A row is drawn again only where something changed.

import { quoted } from "../events/filter.js";
import { link } from "../page/address.js";
import { copies, h, setText, svg } from "../page/dom.js";
import { MINUTES, PAUSES_MIN, judge, patience, rate } from "./fleet.js";
import { ago, count, dateTime, duration, line, rate as rateText } from "../page/format.js";

/** Characters of a value in the row; the details show all that is kept. */
const VALUE_CHARS_SHOWN = 80;
const SPARK_WIDTH = 120;
const SPARK_HEIGHT = 24;
/** Minutes with fewer events do not fill the sparkline's height. */
const SPARK_FULL_MIN = 4;

/** @typedef {import("./fleet.js").Device} Device */
/** @typedef {import("./fleet.js").Clock} Clock */

/** @type {Record<import("./fleet.js").DeviceState, {tone: string, title: string}>} */
export const TONES = {
  silent: { tone: "bad", title: "Quiet for longer than is usual for it" },
  offline: { tone: "warn", title: "The cloud says that it went offline" },
  seen: { tone: "", title: "Heard too little to know how often it speaks" },
  online: { tone: "good", title: "Heard within its usual time" },
};

export class Entry {
  #device;
  #version = -1;
  #open = false;
  #id;
  #state = h("span", { class: "chip" });
  #since = h("small", { class: "muted" });
  #last = h("time");
  #bars = svg("path", { class: "spark-bars" });
  #spark = svg("svg", {
    class: "spark", role: "img", width: SPARK_WIDTH, height: SPARK_HEIGHT,
    viewBox: `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`,
  }, svg("path", { class: "spark-base", d: `M0 ${SPARK_HEIGHT - 0.5}H${SPARK_WIDTH}` }), this.#bars);
  #rate = h("small", { class: "muted" });
  #name = h("a", { class: "mono" });
  #value = h("span", { class: "mono device-value" });
  #toggle;
  /** Made when it is first opened: most never are.
   * @type {HTMLTableRowElement | null} */
  #details = null;
  #facts = h("p", { class: "muted" });
  #names = h("tbody");

  /** @param {Device} device */
  constructor(device) {
    this.#device = device;
    this.#id = `device-${device.id.replace(/[^\w-]/g, "_")}`;
    this.#toggle = h("button", {
      type: "button", class: "quiet device-toggle", "aria-expanded": "false",
      "aria-label": `Details of ${device.id}`, onclick: () => this.#turn(),
    }, h("span", { "aria-hidden": "true" }, "▸"));
    const button = h("button", { type: "button", class: "quiet device-copy", "aria-describedby": this.#id }, "Copy");
    const name = h("a", { id: this.#id, class: "mono", href: events(device.id), title: "Its events" }, device.id);
    const cell = (/** @type {string} */ kind, /** @type {import("../page/dom.js").Child[]} */ ...children) =>
      h("td", { class: `device-${kind}`, role: "cell" }, ...children);
    this.row = h("tr", { class: "device", role: "row" },
      h("th", { scope: "row", role: "rowheader", class: "device-id" },
        h("span", { class: "device-head" }, this.#toggle, name, copies(button, () => device.id))),
      cell("state", this.#state),
      cell("last", this.#last, this.#since),
      cell("rate", this.#spark, this.#rate),
      cell("newest", this.#name, this.#value));
  }

  /** The elements, in order. */
  get elements() {
    return this.#details ? [this.row, this.#details] : [this.row];
  }

  /**
   * @param {Clock} clock
   * @param {number} since when counting began
   */
  paint(clock, since) {
    const device = this.#device;
    const state = judge(device, clock);
    if (this.#state.textContent !== state) {
      this.#state.textContent = state;
      this.#state.dataset.tone = TONES[state].tone;
      this.#state.title = TONES[state].title;
    }
    const isKnown = Number.isFinite(device.lastAt);
    setText(this.#last, isKnown ? agoWhole(clock.now - device.lastAt) : "unknown");
    setText(this.#since, state === "silent" ? `usually within ${duration(device.usual)}` : "");
    this.#drawRate(clock.now, since);
    if (this.#version === device.version) return;
    this.#version = device.version;
    if (isKnown) {
      this.#last.dateTime = new Date(device.lastAt).toISOString();
      this.#last.title = dateTime(device.lastAt);
    }
    const value = device.names.get(device.newest);
    setText(this.#name, line(device.newest, VALUE_CHARS_SHOWN));
    this.#name.href = events(device.id, device.newest);
    setText(this.#value, line(value?.data || "(no data)", VALUE_CHARS_SHOWN));
    if (this.#open) this.#drawDetails();
  }

  /**
   * @param {number} now
   * @param {number} since
   */
  #drawRate(now, since) {
    const { counts, total, most } = rate(this.#device, now);
    const step = SPARK_WIDTH / MINUTES;
    const full = Math.max(most, SPARK_FULL_MIN);
    const bars = counts.map((number, i) => {
      if (number === 0) return "";
      const height = Math.max(2, (number / full) * SPARK_HEIGHT);
      return `M${i * step} ${SPARK_HEIGHT}v${-height.toFixed(1)}h${step - 1}v${height.toFixed(1)}z`;
    }).join("");
    if (this.#bars.getAttribute("d") !== bars) this.#bars.setAttribute("d", bars);
    const known = Math.min(MINUTES * 60_000, Math.max(0, now - since));
    const minutes = Math.max(1, Math.floor(known / 60_000));
    const span = `${minutes} minute${minutes === 1 ? "" : "s"}`;
    const text = `${count(total)} event${total === 1 ? "" : "s"} in the last ${span}; at most ${count(most)} in one`;
    if (this.#spark.getAttribute("aria-label") !== text) this.#spark.setAttribute("aria-label", text);
    setText(this.#rate, rateText(total / Math.max(60, known / 1000)));
  }

  #turn() {
    this.#open = !this.#open;
    this.#toggle.setAttribute("aria-expanded", String(this.#open));
    if (this.#open) {
      this.#details ??= this.#makeDetails();
      this.row.after(this.#details);
      this.#drawDetails();
    }
    if (this.#details) this.#details.hidden = !this.#open;
  }

  #makeDetails() {
    const names = h("table", { class: "device-names" },
      h("caption", { class: "unseen" }, `Newest value of each event name of ${this.#device.id}`),
      h("thead", null, h("tr", null, ...["Event", "Newest value", "When", "Events"].map((text, i) =>
        h("th", { scope: "col", class: i === 3 ? "number" : null }, text)))),
      this.#names);
    this.#toggle.setAttribute("aria-controls", `${this.#id}-more`);
    return h("tr", { id: `${this.#id}-more`, class: "device-more", role: "row" },
      h("td", { colspan: 5, role: "cell" }, this.#facts, names));
  }

  #drawDetails() {
    const device = this.#device;
    const pace = Number.isNaN(device.usual)
      ? `Heard too little to say what is usual: ${device.pauses.length} of ${PAUSES_MIN} pauses known.`
      : `Its usual longest pause is ${duration(device.usual)}: silent after ${duration(patience(device))}.`;
    const forgotten = device.namesForgotten
      ? ` Only the ${device.names.size} names heard last are kept; ${count(device.namesForgotten)} made room.` : "";
    setText(this.#facts, `${pace} ${count(device.events)} events counted by this page.${forgotten}`);
    const rows = [...device.names].reverse().map(([name, value]) => h("tr", null,
      h("td", null, h("a", { class: "mono", href: events(device.id, name) }, line(name, 256))),
      h("td", { class: "mono" }, line(value.data || "(no data)", Infinity)),
      h("td", { class: "device-when" }, dateTime(value.at)),
      h("td", { class: "number" }, count(value.count))));
    // Whoever stands on a link here stays on it.
    const at = document.activeElement;
    const href = this.#names.contains(at) ? at?.getAttribute("href") : null;
    this.#names.replaceChildren(...rows);
    if (href) [...this.#names.querySelectorAll("a")].find((one) => one.getAttribute("href") === href)?.focus();
  }
}

/**
 * In whole seconds: a text that changes more often cannot be read, and costs.
 * @param {number} ms
 */
const agoWhole = (ms) => (ms < 1_500 || ms >= 10_000 ? ago(ms) : `${Math.round(ms / 1_000)} s ago`);

/**
 * Where the events of a device are, or those of one name.
 * @param {string} device
 * @param {string} [name]
 */
function events(device, name) {
  return link("events", { q: `device:${quoted(device)}${name === undefined ? "" : ` name:${quoted(name)}`}` });
}
