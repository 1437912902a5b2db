// The data of a row as JSON, parsed once, and the numbers in it.

/** @typedef {import("./store.js").Row} Row */

/** Data longer than this is shown, not searched. */
const PARSED_CHARS_MAX = 262_144;
/** Numbers of one event that can be picked. */
const NUMBERS_MAX = 200;

/**
 * What a row's data says, or undefined if it is no JSON.
 * @param {Row} row
 * @returns {any}
 */
export function json(row) {
  if (!("json" in row)) row.json = parse(row.data);
  return row.json;
}

/** @param {string} text */
function parse(text) {
  // Most data is a bare word: not even tried.
  if (text.length > PARSED_CHARS_MAX || !/^\s*[-\d{["tfn]/.test(text)) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * A value as JSON. What JSON can be read from can still be nested too deep to be written.
 * @param {unknown} value
 * @param {number} [indent]
 */
export function written(value, indent) {
  try {
    return JSON.stringify(value, null, indent);
  } catch {
    return "(nested too deep to be written out)";
  }
}

/**
 * The value at a path such as `t` or `loc.lat` or `list.0`; the empty path is the whole.
 * @param {any} value
 * @param {string[]} path
 */
export function at(value, path) {
  let found = value;
  for (const key of path) {
    if (found === null || typeof found !== "object" || !Object.hasOwn(found, key)) return undefined;
    found = found[key];
  }
  return found;
}

/**
 * The numbers in a value, with their paths. Numbers in text count: many devices send those.
 * @param {any} value
 * @returns {{path: string[], value: number}[]}
 */
export function numbers(value) {
  /** @type {{path: string[], value: number}[]} */
  const found = [];
  /** @type {(value: any, path: string[]) => void} */
  const visit = (value, path) => {
    if (found.length >= NUMBERS_MAX || path.length > 12) return;
    const number = asNumber(value);
    if (number !== undefined) found.push({ path, value: number });
    else if (value !== null && typeof value === "object") {
      for (const key of Object.keys(value)) visit(value[key], [...path, key]);
    }
  };
  visit(value, []);
  return found;
}

/**
 * @param {any} value
 * @returns {number | undefined} if it is one, or text that is one
 */
export function asNumber(value) {
  if (typeof value === "number") return Number.isFinite(value) ? value : undefined;
  if (typeof value !== "string" || !/^\s*[-+]?(\d|\.\d)/.test(value) || value.length > 40) return undefined;
  const number = Number(value);
  return Number.isFinite(number) ? number : undefined;
}

/** A path as people write it, and as the address holds it. Dots and backslashes in keys are escaped. */
export const pathText = (/** @type {string[]} */ path) =>
  path.map((key) => key.replace(/[\\.]/g, "\\$&")).join(".");

/** @param {string} text @returns {string[]} */
export function pathOf(text) {
  if (text === "") return [];
  const keys = [""];
  for (let i = 0; i < text.length; i += 1) {
    if (text[i] === "\\" && i + 1 < text.length) keys[keys.length - 1] += text[++i];
    else if (text[i] === ".") keys.push("");
    else keys[keys.length - 1] += text[i];
  }
  return keys;
}
