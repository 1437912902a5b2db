// particle-api-js, as applications use it, in the versions that differ as clients of a stream.

import { createRequire } from "node:module";

import { Listener } from "./listener.mjs";

const require = createRequire(import.meta.url);

/** One of each kind: no idle timeout and token in the query; idle timeout; Bearer token. */
const PACKAGES = ["particle-api-js-6", "particle-api-js-9", "particle-api-js-12"];
/** What it tells beside events; from 8.0 on. */
const TOLD = ["disconnect", "reconnect", "reconnect-success", "reconnect-error", "error", "response"];
const TOKEN = "not-a-real-token";

/**
 * @typedef {object} Version
 * @property {string} version such as `12.0.3`
 * @property {boolean} idles it notices that nothing comes any more, and that a connection broke
 * @property {boolean} returns it comes back after its stream has ended, on this Node
 * @property {any} Particle its class
 */

/** @type {Version[]} */
export const versions = PACKAGES.map((name) => {
  const { version } = require(`../node_modules/${name}/package.json`);
  const Particle = require(name);
  const major = Number(version.split(".")[0]);
  // It takes the `navigator` of Node 21 and newer for a browser that is offline.
  const misled = major >= 8 && major < 12 && "navigator" in globalThis && !("onLine" in navigator);
  return { version, idles: major >= 8, returns: !misled, Particle: Particle.default ?? Particle };
});

/**
 * Opens a stream and listens as soon as the library lets it.
 * @param {Version} version
 * @param {string} baseUrl
 * @param {object} [options] of `getEventStream`; all events of one's own devices if none
 */
export async function listen({ version, Particle }, baseUrl, options = { deviceId: "mine" }) {
  const listener = new Listener(`particle-api-js ${version}`);
  const stream = await new Particle({ baseUrl }).getEventStream({ ...options, auth: TOKEN });
  stream.on("event", (/** @type {{ name: string }} */ event) => listener.take({ name: event.name, data: event, id: "" }));
  for (const word of TOLD) stream.on(word, () => listener.told.push(word));
  listener.close = () => stream.abort();
  return listener;
}
