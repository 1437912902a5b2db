// A number's course since the page began to look, in bounded memory.
//
// Law: when it is full, every second sample goes: the whole time stays, more coarsely.

import { svg } from "../page/dom.js";

/** Samples kept of one number. */
export const SAMPLES_MAX = 240;
const WIDTH = 120;
const HEIGHT = 26;

/** Samples of several numbers taken at the same times. Pure. */
export class Samples {
  /** @type {number[]} Unix milliseconds */
  times = [];
  /** @type {Record<string, number[]>} */
  values = {};
  /** Least time between two samples. */
  #step = 0;

  /**
   * @param {number} at Unix milliseconds
   * @param {Record<string, number>} numbers always the same names
   */
  add(at, numbers) {
    const last = this.times[this.times.length - 1];
    if (last !== undefined && at - last < this.#step) return;
    if (this.times.length >= SAMPLES_MAX) {
      const every = (/** @type {number[]} */ list) => list.filter((_, i) => i % 2 === 0);
      this.times = every(this.times);
      for (const name of Object.keys(this.values)) this.values[name] = every(this.values[name]);
      this.#step = (this.times[this.times.length - 1] - this.times[0]) / (this.times.length - 1);
    }
    this.times.push(at);
    for (const [name, number] of Object.entries(numbers)) (this.values[name] ??= []).push(number);
  }
}

/**
 * A small curve.
 * @returns {{element: SVGElement, draw: (values: number[], text: string) => void}}
 */
export function trend() {
  const path = svg("path");
  const element = svg("svg", {
    class: "trend", role: "img", width: WIDTH, height: HEIGHT, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-label": "",
  }, svg("path", { class: "trend-base", d: `M0 ${HEIGHT - 0.5}H${WIDTH}` }), path);
  return {
    element,
    draw(values, text) {
      const known = values.map((value) => (Number.isFinite(value) ? value : 0));
      const most = Math.max(1, ...known);
      const step = WIDTH / Math.max(1, known.length - 1);
      const y = (/** @type {number} */ value) => (HEIGHT - 1 - (value / most) * (HEIGHT - 3)).toFixed(1);
      // Counts stay until they change: steps, not slopes.
      const steps = known.map((value, i) => (i === 0 ? `M0 ${y(value)}` : `H${(i * step).toFixed(1)}V${y(value)}`));
      path.setAttribute("d", steps.join(""));
      element.setAttribute("aria-label", text);
    },
  };
}
