// The broker as a process of its own, on a port that stays the same when it is started again.
// It ends with the test process, however that ends.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { createInterface } from "node:readline";

import { eventually } from "./wait.mjs";

const TRACE_LINES_MAX = 10_000;

/** @type {Set<import("node:child_process").ChildProcess>} */
const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});
for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM"])) {
  process.on(signal, () => process.exit(1));
}

export class Broker {
  /** Its port on 127.0.0.1: chosen by the system at the first start, the same from then on. */
  port = 0;
  /**
   * What it has traced since its last start, a line each, oldest first.
   * @type {Record<string, unknown>[]}
   */
  trace = [];
  /** @type {string[]} */
  #arguments;
  /** @type {import("node:child_process").ChildProcess | undefined} */
  #child;

  /** @param {string[]} args the command and its flags, without `--listen` */
  constructor(args) {
    this.#arguments = args;
  }

  /**
   * `fanlight serve` on a free port, fed by an upstream that speaks SSE; live when this returns.
   * @param {{ url: string }} upstream
   * @param {string[]} [flags] further flags
   */
  static async serve(upstream, flags = []) {
    const source = ["--upstream-source=sse", `--upstream-url=${upstream.url}`];
    const pace = ["--upstream-backoff-min=100ms", "--upstream-backoff-max=1s"];
    const broker = new Broker(["serve", ...source, ...pace, ...flags]);
    await broker.start();
    await broker.live();
    return broker;
  }

  /**
   * `fanlight demo`, with a seed so that it does the same each time.
   * @param {string[]} [flags] further flags
   */
  static async demo(flags = []) {
    const broker = new Broker(["demo", "--demo-seed=1", ...flags]);
    await broker.start();
    await broker.live();
    return broker;
  }

  /** Its origin, such as `http://127.0.0.1:40123`. */
  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Starts it, again where it was killed or stopped. Listens when this returns. */
  async start() {
    const binary = process.env.FANLIGHT_BIN;
    if (!binary) throw new Error("FANLIGHT_BIN does not say where the broker is");
    const listen = `--listen=127.0.0.1:${this.port}`;
    // An empty environment: no setting and no state of the machine's own.
    const child = spawn(binary, [...this.#arguments, listen, "--trace-format=json"], {
      env: {},
      cwd: tmpdir(),
      stdio: ["ignore", "ignore", "pipe"],
    });
    running.add(child);
    child.once("exit", () => running.delete(child));
    this.#child = child;
    this.trace = [];
    await new Promise((resolve, reject) => {
      const lines = createInterface({ input: /** @type {import("node:stream").Readable} */ (child.stderr) });
      lines.on("line", (text) => {
        const line = traced(text);
        if (this.trace.push(line) > TRACE_LINES_MAX) this.trace.shift();
        if (line.message !== "listening") return;
        this.port = Number(String(line.address).split(":").at(-1));
        resolve(undefined);
      });
      child.once("error", reject);
      child.once("exit", () => reject(new Error(`the broker did not start: ${JSON.stringify(this.trace)}`)));
    });
  }

  /** Waits until its upstream is live. */
  live() {
    return eventually("the upstream is live", async () => (await this.json("/status")).upstream.state === "live");
  }

  /**
   * What it answers to a GET, as JSON.
   * @param {string} path
   * @returns {Promise<any>}
   */
  async json(path) {
    return (await fetch(this.url + path)).json();
  }

  /** Ends it at once, as `kill -9` does; its epoch ends with it. */
  kill() {
    return this.#end("SIGKILL");
  }

  /** Ends it in an orderly way: streams get their goodbye. */
  stop() {
    return this.#end("SIGTERM");
  }

  /** @param {NodeJS.Signals} signal */
  async #end(signal) {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  }
}

/**
 * A line of the trace; what is no JSON becomes its message.
 * @param {string} text
 * @returns {Record<string, unknown>}
 */
function traced(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { message: text };
  }
}
