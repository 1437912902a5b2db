// The EventSources of Node: npm eventsource, and undici's, which is Node's own.

import { createRequire } from "node:module";

import { EventSource as NpmEventSource } from "eventsource";
import { EventSource as UndiciEventSource } from "undici";

import { Listener } from "./listener.mjs";

const require = createRequire(import.meta.url);
/** @param {string} name */
const versionOf = (name) => require(`../node_modules/${name}/package.json`).version;

/** @typedef {{ client: string, Base: new (url: string) => EventTarget & { close(): void } }} Kind */

/** @type {Kind[]} */
export const kinds = [
  { client: `eventsource ${versionOf("eventsource")}`, Base: NpmEventSource },
  { client: `undici ${versionOf("undici")}`, Base: UndiciEventSource },
];

/**
 * Opens a stream. Events of all types are seen, whether or not a page would listen for them.
 * @param {Kind} kind
 * @param {string} url
 */
export function listen({ client, Base }, url) {
  const listener = new Listener(client);
  class Spied extends Base {
    /** @param {Event} event */
    dispatchEvent(event) {
      if ("data" in event) {
        const { type, data, lastEventId } = /** @type {MessageEvent} */ (event);
        listener.take({ name: type, data, id: lastEventId });
      } else {
        const { type, message } = /** @type {{ type: string, message?: string }} */ (event);
        listener.told.push(message ? `${type}: ${message}` : type);
      }
      return super.dispatchEvent(event);
    }
  }
  const source = new Spied(url);
  listener.close = () => source.close();
  return listener;
}
