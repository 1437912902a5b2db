// Real browsers, and pages that are watched: what they complain of fails the test, unless the test
// has said that it expects it.

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** @typedef {import("playwright-core").Browser} Browser */
/** @typedef {import("playwright-core").BrowserContext} BrowserContext */
/** @typedef {import("playwright-core").Page} Page */
/** @typedef {{ on(event: string, listener: (event: any) => void): unknown }} Watchable */

/** A name for 127.0.0.1 in Chromium. Unlike the address, `http` from there is no secure context. */
export const INSECURE_HOST = "broker.example";

// No page of a test may ask anyone but the test for anything.
const CHROMIUM_FLAGS = [
  `--host-resolver-rules=MAP ${INSECURE_HOST} 127.0.0.1`,
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const COMPLAINTS_MAX = 1_000;

/**
 * Chromium, headless. The caller closes it.
 * @param {import("playwright-core").LaunchOptions} [options]
 * @returns {Promise<Browser>}
 */
export async function chromium(options = {}) {
  const executablePath = installed("chromium", "chromium-browser", "google-chrome");
  if (!executablePath) throw new Error("there is no Chromium here; tests/browser/run installs it");
  const playwright = await import("playwright-core");
  return playwright.chromium.launch({ executablePath, args: CHROMIUM_FLAGS, ...options });
}

/** Firefox, headless; undefined where it is not installed. The caller closes it. */
export async function firefox() {
  const executablePath = installed("firefox-esr", "firefox");
  if (!executablePath) return undefined;
  const { default: puppeteer } = await import("puppeteer-core");
  return puppeteer.launch({ browser: "firefox", executablePath, headless: true });
}

/**
 * A new page of Chromium that is watched from its first byte on.
 * @param {Browser | BrowserContext} browser
 * @returns {Promise<{ page: Page, watch: Watch }>}
 */
export async function openPage(browser) {
  const page = await browser.newPage();
  const watch = new Watch(page);
  await page.addInitScript(complainOfPolicy);
  return { page, watch };
}

/**
 * The same in Firefox.
 * @param {import("puppeteer-core").Browser} browser
 */
export async function openFirefoxPage(browser) {
  const page = await browser.newPage();
  const watch = new Watch(page);
  await page.evaluateOnNewDocument(complainOfPolicy);
  return { page, watch };
}

/** What a page complains of: errors and warnings on its console, uncaught exceptions, violated policies. */
export class Watch {
  /**
   * Complaints so far, oldest first.
   * @type {string[]}
   */
  complaints = [];

  /** @param {Watchable} page of Playwright or of Puppeteer: both have these two events */
  constructor(page) {
    page.on("console", (message) => {
      const type = message.type();
      if (["error", "warning", "warn", "assert"].includes(type)) this.#add(`console.${type}: ${message.text()}`);
    });
    page.on("pageerror", (error) => this.#add(`uncaught: ${error.stack ?? error.message ?? error}`));
  }

  /**
   * Throws if there was a complaint that none of `expected` matches.
   * @param {...RegExp} expected
   */
  clean(...expected) {
    const unexpected = this.complaints.filter((text) => !expected.some((form) => form.test(text)));
    if (unexpected.length > 0) throw new Error(`the page complained:\n${unexpected.join("\n")}`);
  }

  /** @param {string} complaint */
  #add(complaint) {
    if (this.complaints.length < COMPLAINTS_MAX) this.complaints.push(complaint);
  }
}

/** What browsers say on the console of their own when a request fails, whatever the page does about it. */
export const NETWORK_COMPLAINTS = [
  /Failed to load resource/,
  /net::ERR_/,
  /WebSocket connection to .* failed/,
  /EventSource's response has a/,
  /can.t establish a connection to the server at/,
  /The connection to .* was interrupted while the page was loading/,
];

/** Runs in the page, before its own scripts. */
function complainOfPolicy() {
  document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sample }) => {
    console.error(`securitypolicyviolation: ${violatedDirective} blocked ${blockedURI} ${sample}`);
  });
}

/**
 * The first of these commands that is on the path.
 * @param {...string} names
 */
function installed(...names) {
  const folders = (process.env.PATH ?? "").split(delimiter);
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
