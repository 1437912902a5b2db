// The filter's language: words joined by and, a minus in front of one turns it round.
//
//     temp                 in name, data or device
//     name:greenhouse/*    the name; * is any text
//     device:e00fce68      the device, or how its id begins
//     data:open            in the data
//     data.t>30            a value in JSON data; also >= < <= = !=
//     data.loc.lat         JSON data that has this
//     is:gap               a kind of row
//     "door open"          one word
//
// Law: any text is a filter. What cannot be understood is said, and hides nothing.

import { asNumber, at, json, pathOf, written } from "../data/json.js";

/** @typedef {import("../data/store.js").Row} Row */
/** @typedef {(row: Row) => boolean} Test */

const KINDS = ["event", "gap", "hole", "upstream"];
/** Words of a filter: more are not looked at. */
const WORDS_MAX = 50;

/**
 * @param {string} text
 * @returns {{test: Test | null, problems: string[]}} the test, null if all pass, and what is odd
 */
export function parse(text) {
  /** @type {string[]} */
  const problems = [];
  const words = split(text);
  if (words.length > WORDS_MAX) problems.push(`only the first ${WORDS_MAX} words count`);
  const tests = words.slice(0, WORDS_MAX).flatMap((word) => {
    const isNot = word.length > 1 && word.startsWith("-");
    const test = one(isNot ? word.slice(1) : word, problems);
    if (!test) return [];
    return isNot ? (/** @type {Row} */ row) => !test(row) : test;
  });
  if (tests.length === 0) return { test: null, problems };
  return { test: (row) => tests.every((test) => test(row)), problems };
}

/**
 * A word that a filter takes literally.
 * @param {string} text
 */
export function quoted(text) {
  return /[\s"\\]/.test(text) || text === "" ? `"${text.replace(/["\\]/g, "\\$&")}"` : text;
}

/**
 * Words: split at spaces that stand in no quotes. Quotes stay, for `one` to see.
 * @param {string} text
 */
function split(text) {
  return text.match(/(?:"(?:\\.|[^"\\])*"?|[^\s"])+/g) ?? [];
}

/** @param {string} text */
const unquoted = (text) => text.replace(/"((?:\\.|[^"\\])*)"?/g, (_, inner) => inner.replace(/\\(.)/g, "$1"));

/**
 * @param {string} word
 * @param {string[]} problems
 * @returns {Test | null} null if it says nothing
 */
function one(word, problems) {
  const field = /^(name|device|is|data)(:)(.*)$/s.exec(word);
  const value = unquoted(field?.[3] ?? "");
  switch (field?.[1]) {
    case "name": return matches(value, (row) => row.name);
    case "device": return matches(value.endsWith("*") ? value : `${value}*`, (row) => row.device);
    case "data": return contains(value, (row) => row.data);
    case "is":
      if (KINDS.includes(value)) return (row) => row.kind === value;
      problems.push(`is:${value}: there are only ${KINDS.join(", ")}`);
      return null;
    default:
  }
  // Each dot begins a part, and none is within one: else there were too many ways to read it.
  const compared = /^data((?:\.(?:"(?:\\.|[^"\\])*"|[^<>=!".])*)*)(>=|<=|!=|>|<|=)(.*)$/s.exec(word);
  if (compared) return compare(compared[1], compared[2], unquoted(compared[3]), problems);
  const has = /^data\.(.+)$/s.exec(word);
  if (has) {
    const path = pathOf(unquoted(has[1]));
    return (row) => row.kind === "event" && at(json(row), path) !== undefined;
  }
  const odd = /^([a-z_]+):\S/i.exec(word);
  if (odd && !word.startsWith('"')) {
    problems.push(`${odd[1]}: is no field (there are name, device, data, is); looked for as a plain word`);
  }
  const text = unquoted(word).toLowerCase();
  return (row) => row.name.toLowerCase().includes(text) || row.data.toLowerCase().includes(text) ||
    row.device.toLowerCase().includes(text);
}

/**
 * @param {string} dotted path with its leading dot, or nothing for the whole of the data
 * @param {string} operator
 * @param {string} value
 * @param {string[]} problems
 * @returns {Test | null}
 */
function compare(dotted, operator, value, problems) {
  const path = dotted ? pathOf(unquoted(dotted.slice(1))) : [];
  const number = asNumber(value);
  /** @type {(row: Row) => any} */
  const found = (row) => (path.length === 0 ? json(row) ?? row.data : at(json(row), path));
  const text = value.toLowerCase();
  /** @type {(row: Row) => boolean} */
  const equals = (row) => {
    const there = found(row);
    if (number !== undefined && asNumber(there) === number) return true;
    const said = typeof there === "object" && there !== null ? written(there) : String(there);
    return there !== undefined && said.toLowerCase() === text;
  };
  if (operator === "=") return (row) => row.kind === "event" && equals(row);
  if (operator === "!=") return (row) => row.kind === "event" && found(row) !== undefined && !equals(row);
  if (number === undefined) {
    problems.push(`data${dotted}${operator}${value}: ${value === "" ? "a number is missing" : `${value} is no number`}`);
    return null;
  }
  return (row) => {
    const there = row.kind === "event" ? asNumber(found(row)) : undefined;
    if (there === undefined) return false;
    switch (operator) {
      case ">": return there > number;
      case "<": return there < number;
      case ">=": return there >= number;
      default: return there <= number;
    }
  };
}

/**
 * @param {string} pattern in any case of letters; * is any text
 * @param {(row: Row) => string} field
 * @returns {Test}
 */
function matches(pattern, field) {
  const parts = pattern.toLowerCase().split("*");
  const [first] = parts;
  const last = parts[parts.length - 1];
  const inner = parts.slice(1, -1);
  if (parts.length === 1) return (row) => row.kind === "event" && field(row).toLowerCase() === first;
  // By hand: a pattern of many stars would make a regular expression search for ages.
  return (row) => {
    if (row.kind !== "event") return false;
    const text = field(row).toLowerCase();
    const end = text.length - last.length;
    if (!text.startsWith(first) || !text.endsWith(last) || end < first.length) return false;
    let from = first.length;
    for (const part of inner) {
      const found = text.indexOf(part, from);
      if (found < 0 || found + part.length > end) return false;
      from = found + part.length;
    }
    return true;
  };
}

/**
 * @param {string} text
 * @param {(row: Row) => string} field
 * @returns {Test}
 */
function contains(text, field) {
  const wanted = text.toLowerCase();
  return (row) => row.kind === "event" && field(row).toLowerCase().includes(wanted);
}
