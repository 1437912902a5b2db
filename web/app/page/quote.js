// Text as a literal of a language. Pure.
//
// Law: for any text without half surrogate pairs the language reads back the same text, and
// nothing in it ends the literal.

/** A word of a POSIX shell. A shell has no NUL; URLs carry it as %00. */
export const shell = (/** @type {string} */ text) =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** JavaScript; also inside of a page's script element. */
export const javascript = (/** @type {string} */ text) =>
  JSON.stringify(text).replace(/[<\u007f-\u009f\u2028\u2029\ufeff]/g, escape);

/** Python: its literals know all that JSON writes. */
export const python = (/** @type {string} */ text) => JSON.stringify(text).replace(/[\u007f-\u009f\u2028\u2029\ufeff]/g, escape);

/** @param {string} sign */
const escape = (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`;

/**
 * A list of pairs as a literal.
 * @param {[string, string][]} list
 * @param {(text: string) => string} text
 * @param {string} open
 * @param {string} close
 */
export const pairs = (list, text, open, close) =>
  list.length === 0 ? "[]" : `[\n${list.map(([name, value]) => `${open}${text(name)}, ${text(value)}${close},\n`).join("")}]`;
