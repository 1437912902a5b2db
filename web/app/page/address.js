// What the page shows, as its address: `#/events?q=name:temp/*`. A link reproduces it.
//
// Law: whoever changes what is shown changes the address, and nothing else remembers it.

/** Time between two changes of the address: Safari refuses more than 100 in 30 s. */
const INTERVAL_MS = 350;

/** @typedef {{view: string, params: URLSearchParams}} Place */

/** What the address becomes in a moment, if it is still the one it was. @type {{from: string, to: string} | null} */
let waiting = null;
/** @type {ReturnType<typeof setTimeout> | 0} */
let timer = 0;

/** The address the broker is served under, with a slash at its end. */
export const base = () => new URL("./", location.href).href;

/** @returns {Place} where the page is */
export function read() {
  const hash = waiting?.from === location.hash ? waiting.to : location.hash;
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { view: path || "events", params: new URLSearchParams(query) };
}

/**
 * The address of a place, for links.
 * @param {string} view
 * @param {Record<string, string> | URLSearchParams} [params]
 */
export function link(view, params) {
  const query = new URLSearchParams(params ?? {}).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

/**
 * Changes parameters of the present view without a step in the history; null removes one.
 * Nobody is told: the caller shows already what it says.
 * @param {Record<string, string | null>} changes
 */
export function amend(changes) {
  const { view, params } = read();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") params.delete(name);
    else params.set(name, value);
  }
  replace(link(view, params));
}

/**
 * Puts a place in the stead of the present one, without a step in the history.
 * @param {string} to as `link` makes it
 */
export function replace(to) {
  waiting = { from: location.hash, to };
  if (!timer) write();
}

function write() {
  timer = 0;
  if (waiting?.from === location.hash) {
    history.replaceState(null, "", waiting.to);
    timer = setTimeout(write, INTERVAL_MS);
  }
  waiting = null;
}

/**
 * Goes to a place, as following a link does.
 * @param {string} view
 * @param {Record<string, string>} [params]
 */
export function go(view, params) {
  location.hash = link(view, params);
}

/** @param {(place: Place) => void} told */
export function watch(told) {
  addEventListener("hashchange", () => told(read()));
}
