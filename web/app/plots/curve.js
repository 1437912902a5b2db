// From points to what is drawn of them: a window, thinned to what the screen can show, with
// a break wherever something is missing. Pure.
//
// Law: what is left out was invisible. Of each column of the screen the first, lowest,
// highest and last point stay.

/** @typedef {import("./series.js").Line} Line */
/** @typedef {{times: number[], values: number[]}} Curve */
/** @typedef {{count: number, min: number, max: number, mean: number, newest: number, time: number}} Summary */

/** Points for each column that are drawn. */
const POINTS_PER_COLUMN = 4;

/**
 * What a line amounts to between two times; `newest` and `time` are of the whole line.
 * @param {Line} line
 * @param {number} from
 * @param {number} to
 * @returns {Summary} NaN where there is nothing
 */
export function summary(line, from, to) {
  const end = line.from(to + 1);
  let count = 0;
  let min = Infinity;
  let max = -Infinity;
  let mean = 0;
  for (let i = line.from(from); i < end; i += 1) {
    const value = line.value(i);
    count += 1;
    if (value < min) min = value;
    if (value > max) max = value;
    // Adding all up could leave the range of numbers.
    mean += (value - mean) / count;
  }
  const last = line.end - 1;
  const newest = { newest: line.size ? line.value(last) : NaN, time: line.size ? line.time(last) : NaN };
  return count ? { count, min, max, mean, ...newest } : { count, min: NaN, max: NaN, mean: NaN, ...newest };
}

/**
 * The points to draw between two times, and one on either side, so that the line leaves
 * the picture where it does.
 * @param {Line} line
 * @param {number} from
 * @param {number} to
 * @param {number} columns of the screen
 * @returns {Curve}
 */
export function thin(line, from, to, columns) {
  const first = line.from(from);
  const end = line.from(to + 1);
  /** @type {Curve} */
  const curve = { times: [], values: [] };
  const add = (/** @type {number} */ index) => {
    curve.times.push(line.time(index));
    curve.values.push(line.value(index));
  };
  if (first > line.start) add(first - 1);
  if (end - first <= columns * POINTS_PER_COLUMN) {
    for (let i = first; i < end; i += 1) add(i);
  } else {
    const width = (to - from) / columns;
    let i = first;
    for (let column = 1; i < end; column += 1) {
      const until = from + column * width;
      const begin = i;
      let low = i;
      let high = i;
      while (i < end && (line.time(i) < until || column === columns)) {
        if (line.value(i) < line.value(low)) low = i;
        if (line.value(i) > line.value(high)) high = i;
        i += 1;
      }
      if (i === begin) continue;
      for (const index of new Set([begin, Math.min(low, high), Math.max(low, high), i - 1])) add(index);
    }
  }
  if (end < line.end) add(end);
  return curve;
}

/**
 * Several curves over one axis. Where a curve has no point of its own it is undefined, and
 * drawn through; at a break all are null, and are not.
 * @param {(Curve | null)[]} curves
 * @param {number[]} breaks times
 * @returns {[number[], ...(number | null | undefined)[][]]}
 */
export function table(curves, breaks) {
  const ends = curves.flatMap((curve) => (curve?.times.length ? [curve.times[0], curve.times[curve.times.length - 1]] : []));
  const lowest = Math.min(...ends);
  const highest = Math.max(...ends);
  // A break outside of all points separates nothing.
  const cuts = breaks.filter((time) => time >= lowest && time <= highest).sort((a, b) => a - b);
  const all = Float64Array.from(curves.flatMap((curve) => curve?.times ?? [])).sort();
  /** @type {number[]} */
  const times = [];
  /** @type {boolean[]} */
  const isCut = [];
  let cut = 0;
  for (const time of all) {
    while (cut < cuts.length && cuts[cut] < time) {
      times.push(cuts[cut++]);
      isCut.push(true);
    }
    if (times.length && times[times.length - 1] === time && !isCut[times.length - 1]) continue;
    times.push(time);
    isCut.push(false);
  }
  const columns = curves.map((curve) => {
    /** @type {(number | null | undefined)[]} */
    const column = new Array(times.length).fill(undefined);
    let next = 0;
    for (let i = 0; i < times.length; i += 1) {
      if (isCut[i]) column[i] = null;
      else {
        while (curve && next < curve.times.length && curve.times[next] <= times[i]) column[i] = curve.values[next++];
      }
    }
    return column;
  });
  return [times, ...columns];
}

/**
 * Bounds of the vertical axis: what is between two times, and a little air.
 * @param {(Curve | null)[]} curves
 * @param {number} from
 * @param {number} to
 * @returns {[number, number]}
 */
export function bounds(curves, from, to) {
  let min = Infinity;
  let max = -Infinity;
  for (const curve of curves) {
    if (!curve) continue;
    const { times, values } = curve;
    for (let i = 0; i < times.length; i += 1) {
      let value = values[i];
      // A point outside counts as far as its line comes in.
      const edge = times[i] < from ? from : times[i] > to ? to : NaN;
      if (!Number.isNaN(edge)) {
        const inner = times[i] < from ? i + 1 : i - 1;
        if (!(times[inner] >= from && times[inner] <= to)) continue;
        value += (values[inner] - value) * ((edge - times[i]) / (times[inner] - times[i]));
      }
      if (value < min) min = value;
      if (value > max) max = value;
    }
  }
  if (min > max) return [0, 1];
  // Halves, since the difference of two numbers can be none.
  const air = (max / 2 - min / 2) * 0.16 || Math.abs(max) * 0.05 || 1;
  return [Math.max(min - air, -Number.MAX_VALUE / 4), Math.min(max + air, Number.MAX_VALUE / 4)];
}
