// What the page shows, as its address: `#/events?q=name:temp/*`. A link reproduces it.
//
// Law: whoever changes what is shown changes the address, and nothing else remembers it.

/** @typedef {{view: string, params: URLSearchParams}} Place */

/** @returns {Place} where the page is */
export function read() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
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
  history.replaceState(null, "", link(view, params));
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
