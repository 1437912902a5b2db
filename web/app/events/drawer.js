// The details of one row: what it says, every number in it, and what can be done with it.

import { base, link } from "../page/address.js";
import { copies, h } from "../page/dom.js";
import { quoted } from "./filter.js";
import { ago, bytes, count, dateTime, duration } from "../page/format.js";
import { asNumber, json, pathText, written } from "../data/json.js";
import { shell } from "../page/quote.js";
import { plotLink } from "../plots/series.js";
import { tryLink } from "../try/subscription.js";

/** @typedef {import("../data/store.js").Row} Row */

/** Characters of data that are shown; all can be copied. */
const SHOWN_CHARS_MAX = 100_000;
/** Bytes shown as such. */
const DUMP_BYTES_MAX = 4_096;
/** Values of a tree that are shown. */
const TREE_VALUES_MAX = 2_000;
/** Depth of a tree that is shown. */
const TREE_DEPTH_MAX = 40;
/** What a browser draws without running anything. */
const IMAGE = /^data:image\/(?:png|jpeg|gif|webp);base64,([A-Za-z0-9+/=\s]+)$/;

const encoder = new TextEncoder();

export class Drawer {
  #content = h("div", { class: "drawer-content" });
  #heading = h("h2", { id: "drawer-title", tabindex: -1 });
  /** The form in which data is shown, kept from row to row. */
  #form = "pretty";
  /** @type {Row | null} */
  #row = null;

  /** @param {() => void} closed */
  constructor(closed) {
    const close = h("button", { type: "button", class: "quiet", "aria-label": "Close the details", title: "Close (Esc)", onclick: closed }, "✕");
    this.element = h("aside", { class: "drawer", "aria-labelledby": "drawer-title", hidden: true },
      h("div", { class: "split" }, this.#heading, close), this.#content);
  }

  get isOpen() {
    return !this.element.hidden;
  }

  /** Position of the row that is shown, or "". */
  get id() {
    return this.#row?.id ?? "";
  }

  /** @param {Row | null} row null closes it */
  show(row) {
    this.#row = row;
    this.element.hidden = row === null;
    if (!row) return;
    this.#heading.textContent = row.name;
    this.#content.replaceChildren(...(row.kind === "event" ? this.#event(row) : this.#control(row)));
    this.element.scrollTop = 0;
  }

  focus() {
    this.#heading.focus();
  }

  /** @param {Row} row */
  #control(row) {
    return [
      h("p", null, row.data),
      this.#facts([["Position", row.id], ["Received", dateTime(row.received)]]),
      h("h3", null, "As the broker said it"),
      h("pre", { class: "payload", tabindex: 0 }, written(row.event, 2)),
    ];
  }

  /** @param {Row} row */
  #event(row) {
    const size = encoder.encode(row.data).length;
    const delay = row.received - row.published;
    const only = (/** @type {string} */ field, /** @type {string} */ value) =>
      h("a", { href: link("events", { q: `${field}:${quoted(value)}` }) }, `only this ${field}`);
    return [
      this.#facts([
        ["Device", row.device ? h("span", { class: "mono" }, row.device, " ") : "–", row.device && only("device", row.device)],
        ["Name", h("span", { class: "mono" }, row.name, " "), only("name", row.name)],
        ["Published", Number.isFinite(row.published) ? `${dateTime(row.published)} (${ago(Date.now() - row.published)})` : "not said"],
        ["Delay", Number.isFinite(delay) ? `${duration(delay)} from the device's time to this page` : "not known: from the broker's memory"],
        ["Position", h("span", { class: "mono" }, row.id)],
        ["Size", `${count(size)} bytes of data`],
      ]),
      h("div", { class: "wrap" },
        copies(h("button", { type: "button" }, "Copy data"), () => row.data),
        copies(h("button", { type: "button" }, "Copy JSON"), () => written(row.event)),
        copies(h("button", { type: "button" }, "Copy as curl"), () => curl(row)),
        copies(h("button", { type: "button" }, "Copy link"), () => `${base()}${link("events", { id: row.id })}`),
        h("a", { class: "button", href: tryLink({ position: row.id, run: true }) }, "Replay from here")),
      ...this.#data(row),
    ];
  }

  /** @param {[string, ...import("../page/dom.js").Child[]][]} facts */
  #facts(facts) {
    return h("dl", { class: "drawer-facts" },
      ...facts.flatMap(([name, ...values]) => [h("dt", null, name), h("dd", null, ...values)]));
  }

  /** @param {Row} row */
  #data(row) {
    const value = json(row);
    /** @type {Record<string, [string, () => HTMLElement]>} */
    const forms = {
      pretty: ["Pretty", () => (value === undefined ? plain(row.data) : tree(row, value))],
      raw: ["Raw", () => plain(row.data)],
      bytes: ["Bytes", () => dump(row.data)],
    };
    if (isImage(row.data)) forms.image = ["Image", () => h("img", { class: "payload-image", src: row.data, alt: `Image sent by ${row.device || "the device"}` })];
    const room = h("div");
    const choose = (/** @type {string} */ name) => {
      this.#form = name;
      room.replaceChildren(forms[name][1]());
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.form === name));
    };
    const buttons = Object.entries(forms).map(([name, [label]]) =>
      h("button", { type: "button", "data-form": name, onclick: () => choose(name) }, label));
    const wanted = "image" in forms && this.#form === "pretty" ? "image" : this.#form;
    choose(wanted in forms ? wanted : "pretty");
    return [h("div", { class: "wrap", role: "group", "aria-label": "Form of the data" }, ...buttons), room];
  }
}

/** The position before one, to continue after; "" if it is none. @param {string} id */
export function before(id) {
  const [, epoch, seq] = /^(.*)-(\d+)$/s.exec(id) ?? [];
  return seq === undefined ? "" : `${epoch}-${BigInt(seq) - 1n}`;
}

/** @param {string} text */
function isImage(text) {
  const packed = IMAGE.exec(text);
  try {
    return packed !== null && atob(packed[1]) !== "";
  } catch {
    // It only looks like one.
    return false;
  }
}

/**
 * The command that gets this event again.
 * @param {Row} row
 */
function curl(row) {
  const query = new URLSearchParams({ after: before(row.id), name: row.name, limit: "1", timeout: "0" });
  return `curl ${shell(`${base()}poll?${query}`)}`;
}

/** @param {string} text */
function plain(text) {
  const cut = text.length > SHOWN_CHARS_MAX;
  return h("div", null,
    h("pre", { class: "payload", tabindex: 0, "aria-label": "Data" }, cut ? text.slice(0, SHOWN_CHARS_MAX) : text),
    cut && h("p", { class: "muted" }, `The first ${count(SHOWN_CHARS_MAX)} of ${count(text.length)} characters.`));
}

/** @param {string} text */
function dump(text) {
  const all = encoder.encode(text);
  const lines = [];
  for (let at = 0; at < Math.min(all.length, DUMP_BYTES_MAX); at += 16) {
    const part = [...all.subarray(at, Math.min(at + 16, DUMP_BYTES_MAX))];
    const hex = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const letters = part.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex.padEnd(47)}  ${letters}`);
  }
  return h("div", null,
    h("pre", { class: "payload dump", tabindex: 0, "aria-label": "Bytes" }, lines.join("\n") || "no bytes"),
    all.length > DUMP_BYTES_MAX && h("p", { class: "muted" }, `The first ${bytes(DUMP_BYTES_MAX)} of ${bytes(all.length)}.`));
}

/**
 * JSON as a tree; each number leads to its plot.
 * @param {Row} row
 * @param {any} value
 */
function tree(row, value) {
  let left = TREE_VALUES_MAX;
  /** @type {(value: any, path: string[]) => import("../page/dom.js").Child[]} */
  const visit = (value, path) => {
    left -= 1;
    if (value !== null && typeof value === "object") {
      const entries = path.length < TREE_DEPTH_MAX ? Object.entries(value) : [];
      const [open, close] = Array.isArray(value) ? "[]" : "{}";
      if (entries.length === 0) return [path.length < TREE_DEPTH_MAX ? open + close : `${open}…${close}`];
      const items = [];
      for (const [key, inner] of entries) {
        if (left <= 0) {
          items.push(h("li", null, "…"));
          break;
        }
        items.push(h("li", null, Array.isArray(value) ? null : h("span", { class: "key" }, `${key}: `), ...visit(inner, [...path, key])));
      }
      return [open, h("ul", null, ...items), close];
    }
    const number = asNumber(value);
    const text = typeof value === "string" ? JSON.stringify(value) : String(value);
    if (number === undefined) return [h("span", { class: `value ${typeof value}` }, text)];
    const what = path.length === 0 ? row.name : pathText(path);
    return [h("a", {
      class: "value number", href: plotLink(row.name, path, row.device), title: `Plot ${what}`,
    }, text, h("span", { class: "plot-sign", "aria-hidden": "true" }, " ∿"), h("span", { class: "unseen" }, ` (plot ${what})`))];
  };
  return h("div", { class: "payload tree" }, ...visit(value, []));
}
