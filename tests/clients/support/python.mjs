// Clients in Python, each in a process of its own that prints what it is told.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { Listener } from "./listener.mjs";

/** @param {string} name */
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const pinned = readFileSync(here("../requirements.txt"), "utf8");

/** @type {Set<import("node:child_process").ChildProcess>} */
const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** @typedef {{ name: string, client: string }} Kind */

/** @type {Kind[]} */
export const kinds = ["sseclient-py", "httpx-sse"].map((name) => {
  const version = new RegExp(`^${name}==(\\S+)$`, "m").exec(pinned)[1];
  return { name, client: `${name} ${version}` };
});
export const [sseclient, httpxSse] = kinds;

/**
 * Opens a stream.
 * @param {Kind} kind
 * @param {string} url
 * @param {string} [accept] the header; httpx-sse sends its own in any case
 */
export function listen({ name, client }, url, accept) {
  const listener = new Listener(client);
  const script = [here("listen.py"), name, url, ...(accept ? [accept] : [])];
  const child = spawn(here("../.venv/bin/python"), script, { stdio: ["ignore", "pipe", "pipe"], env: {} });
  running.add(child);
  child.once("exit", () => running.delete(child));
  createInterface({ input: child.stdout }).on("line", (line) => listener.take(JSON.parse(line)));
  createInterface({ input: child.stderr }).on("line", (line) => listener.told.push(line));
  listener.close = () => child.kill();
  return listener;
}
