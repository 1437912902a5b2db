// A quantity beside its bound.
//
// Law: the words beside the bar say all that the bar shows.

import { h, setText } from "./dom.js";

/** Names of the meters made so far, for what points at them. */
let made = 0;

/**
 * @param {string} label
 */
export function meter(label) {
  made += 1;
  const name = h("span", { id: `meter-${made}` }, label);
  const text = h("span", { class: "meter-text" });
  const bar = h("div", { class: "meter-bar" });
  const track = h("div",
    { class: "meter-track", role: "meter", "aria-labelledby": name.id, "aria-valuemin": 0 }, bar);
  const hint = h("small", { class: "muted" });
  const element = h("div", { class: "meter" }, h("div", { class: "split" }, name, text), track, hint);
  return {
    element,
    /**
     * @param {number} value NaN where unknown
     * @param {number} max
     * @param {string} words all of it in words
     * @param {string} [tone] good, warn or bad
     * @param {string} [more] what else to know
     */
    set(value, max, words, tone = "good", more = "") {
      const isKnown = Number.isFinite(value) && max > 0;
      const part = isKnown ? Math.min(1, Math.max(0, value / max)) : 0;
      bar.style.setProperty("--part", part.toFixed(4));
      bar.dataset.tone = tone;
      track.setAttribute("aria-valuemax", String(max > 0 ? max : 1));
      track.setAttribute("aria-valuenow", String(isKnown ? Math.min(max, Math.max(0, value)) : 0));
      track.setAttribute("aria-valuetext", words);
      setText(text, words);
      setText(hint, more);
    },
  };
}
