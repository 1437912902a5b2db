// The help: keys, and how to filter.

import { h } from "./dom.js";

/** @type {[string, string][]} */
const KEYS = [
  ["/", "filter the events"],
  ["Space", "pause, and go on"],
  ["j  k", "next and previous row (also ↓ ↑)"],
  ["Enter", "details of the row"],
  ["Esc", "close, or leave the field"],
  ["g then e p d u s t", "Events, Plots, Devices, Upstream, Subscribers, Try it"],
  ["?", "this help"],
];

/** @type {[string, string][]} */
const FILTERS = [
  ["temp", "in name, data or device, in any case of letters"],
  ["name:greenhouse/*", "the name; * is any text"],
  ["device:e00fce68*", "the device"],
  ["data.t>30", "a number in JSON data; also < >= <= = !="],
  ["data.loc.lat", "JSON data that has this"],
  ["is:gap", "kinds of rows: event, gap, hole, upstream"],
  ["-name:spark/*", "a minus: all but these"],
  ['"door open"', "quotes keep words together"],
];

/** @type {HTMLDialogElement | null} */
let dialog = null;

export function openHelp() {
  dialog ??= make();
  if (!dialog.open) dialog.showModal();
}

function make() {
  const rows = (/** @type {[string, string][]} */ list) =>
    list.flatMap(([sign, meaning]) => [h("dt", null, h("kbd", null, sign)), h("dd", null, meaning)]);
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Close the help" }, "✕");
  const made = h("dialog", { class: "help", "aria-labelledby": "help-title" },
    h("div", { class: "split" }, h("h2", { id: "help-title" }, "Keys"), close),
    h("dl", { class: "keys" }, ...rows(KEYS)),
    h("h2", null, "Filter"),
    h("p", null, "Words are joined by and:"),
    h("dl", { class: "keys" }, ...rows(FILTERS)),
    h("p", null, "The address of the page holds what you see: copy it to share it."));
  close.addEventListener("click", () => made.close());
  made.addEventListener("click", (event) => {
    if (event.target === made) made.close();
  });
  document.body.append(made);
  return made;
}
