// particle-cli, with a home of its own: its profile names the broker.

import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../cli/node_modules/particle-cli", import.meta.url));
/** A run that takes longer has failed. It is not measured. */
const PATIENCE_MS = 90_000;

/** Its version, if it is installed. */
export const version = existsSync(folder) ? JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version : undefined;

/** @typedef {{ status: number, text: string }} Ended what it wrote, and how it ended */

export class Cli {
  #home = mkdtempSync(join(tmpdir(), "fanlight-cli-"));

  /**
   * One whose profile has this broker for the Particle cloud.
   * @param {string} url
   */
  static async for(url) {
    const cli = new Cli();
    await cli.run("config", "set", "apiUrl", url);
    await cli.run("config", "set", "access_token", "not-a-real-token");
    return cli;
  }

  /**
   * Runs a command to its end.
   * @param {string[]} args
   * @returns {Promise<Ended>}
   */
  run(...args) {
    const env = { HOME: this.#home, PATH: process.env.PATH, PARTICLE_DISABLE_UPDATE: "true" };
    return new Promise((resolve) => {
      execFile(process.execPath, [join(folder, "src/index.js"), ...args], { env, timeout: PATIENCE_MS }, (error, stdout, stderr) => {
        resolve({ status: error ? Number(error.code ?? 1) : 0, text: stdout + stderr });
      });
    });
  }

  /** Forgets its home. */
  remove() {
    rmSync(this.#home, { recursive: true });
  }
}
