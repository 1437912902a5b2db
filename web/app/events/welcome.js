// The first screen, while there is no event yet: what is connected, what is missing, what to do.
//
// Law: it says only what the broker and the page's own stream say; nothing is promised.

import { base } from "../page/address.js";
import { copies, h, setText } from "../page/dom.js";
import { duration } from "../page/format.js";
import { shell } from "../page/quote.js";
import { sourceWord, stateMeaning } from "../page/words.js";

/** @typedef {{tone: string, title: string, text: string}} Step */

/** Signs that say without colour what the tone says with it. */
/** @type {Record<string, string>} */
const SIGNS = { good: "✓", warn: "…", bad: "!", none: "–" };
/** @type {Record<string, string>} */
const SIGN_WORDS = { good: "done", warn: "under way", bad: "in trouble", none: "not yet" };

/**
 * @param {import("../main.js").Context} context
 * @returns {{element: HTMLElement, update: () => void}}
 */
export function welcome(context) {
  const { status, feed } = context;
  const steps = [step(), step(), step()];
  const todoTitle = h("h2");
  const todo = h("p");
  const detail = h("blockquote", { class: "broker-detail" });
  const next = h("p", { class: "muted" });
  const why = h("a", { href: "#/upstream" }, "More about the connection to the cloud");
  const publish = command("Publish an event as a device would, with particle-cli", `particle publish hello "from the shell"`);
  const demo = command("See how it looks with simulated devices: no account, no token; on another port",
    "fanlight demo --listen 127.0.0.1:8081");
  const element = h("section", { class: "page welcome", "aria-labelledby": "welcome-title" },
    h("h1", { id: "welcome-title" }, "No event yet"),
    h("div", { class: "card" }, h("ol", { class: "welcome-steps" }, ...steps.map(({ element: one }) => one))),
    h("div", { class: "card welcome-todo" }, todoTitle, todo, detail, next, h("p", null, why)),
    h("div", { class: "card" }, h("h2", null, "To try"),
      h("dl", { class: "welcome-commands" },
        command("Read the same stream in a shell", `curl -N ${shell(`${base()}events`)}`),
        command("What the broker knows of itself", `curl ${shell(`${base()}status`)}`),
        publish,
        demo)));

  status.watch(() => {
    if (element.isConnected) update();
  });
  feed.watch(() => {
    if (element.isConnected) update();
  });
  update();
  return { element, update };

  function update() {
    const { now, error } = status.report;
    const up = now?.upstream;
    const page = pageStep(now, error, feed.state);
    const cloud = cloudStep(up, error);
    const events = eventStep(up, error);
    [page, cloud, events].forEach((one, i) => steps[i].set(one));
    const isDemo = up?.source === "demo";
    publish.hidden = isDemo || up?.source === "sse";
    demo.hidden = isDemo;
    const said = error === "" && up ? up.detail : "";
    detail.hidden = said === "";
    setText(detail, said === "" ? "" : `The broker: ${said}`);
    why.hidden = error !== "" || !up;
    const wait = up?.next_open_in_seconds;
    setText(next, error === "" && typeof wait === "number" ? `The next attempt is in ${duration(wait * 1000)}.` : "");
    const [title, text] = advice(now, error);
    setText(todoTitle, title);
    setText(todo, text);
  }
}

/**
 * @param {any} now
 * @param {string} error
 * @param {import("../../fanlight.js").State | null} stream
 * @returns {Step}
 */
function pageStep(now, error, stream) {
  const title = "This page reads from the broker";
  if (error) return { tone: "bad", title, text: `The broker does not answer: ${error}.` };
  if (!now) return { tone: "warn", title, text: "Asking the broker…" };
  switch (stream?.state) {
    case "open":
      return { tone: "good", title, text: `Broker ${now.version} at ${location.host} answers, and its stream is open.` };
    case "closed":
      return { tone: "bad", title, text: "The stream is closed. Reload the page to open it again." };
    case "offline":
      return { tone: "bad", title, text: "This device is offline: the stream opens again by itself." };
    default:
      return { tone: "warn", title, text: "The broker answers; its stream is being opened." };
  }
}

/**
 * @param {any} up
 * @param {string} error
 * @returns {Step}
 */
function cloudStep(up, error) {
  const title = `The broker reads from ${up ? sourceWord(up.source) : "the cloud"}`;
  if (error || !up) return { tone: "none", title, text: "Not known before the broker answers." };
  const { tone, says } = stateMeaning(up.state);
  return { tone, title, text: up.state === "live" ? "Connected." : `${up.state}: ${says}` };
}

/**
 * @param {any} up
 * @param {string} error
 * @returns {Step}
 */
function eventStep(up, error) {
  const title = "Devices publish";
  if (error || !up) return { tone: "none", title, text: "Not known before the broker answers." };
  if (up.events > 0) {
    return { tone: "good", title, text: "Events came before this page did. The next one shows up here at once." };
  }
  if (up.state === "live") {
    return { tone: "warn", title, text: "No event has come since the broker's start. The first one shows up here at once." };
  }
  return { tone: "none", title, text: "Events can come once the broker is connected." };
}

/**
 * @param {any} now
 * @param {string} error
 * @returns {[string, string]} a title, and what to do
 */
function advice(now, error) {
  if (error) {
    return ["The broker is missing",
      "Check that it runs, and that a proxy in between passes its answers on. This page asks again by itself."];
  }
  if (!now) return ["One moment", "Asking the broker."];
  const up = now.upstream;
  if (up.state !== "live") return [up.state === "connecting" ? "Wait a moment" : "What to do", stateMeaning(up.state).todo];
  if (up.source === "demo") return ["Wait a moment", "The simulated devices speak by themselves; how often, --rate says."];
  if (up.source === "sse") {
    return ["Waiting for the first event",
      "Everything is connected. Let the source send something; if nothing comes, check upstream.url."];
  }
  return ["Waiting for the first event",
    "Everything is connected. Let a device publish, or publish from a shell as shown below. " +
    "If devices publish and nothing comes, check that the token belongs to " +
    "their owner and that upstream.scope, product and prefix let their events through."];
}

function step() {
  const sign = h("span", { class: "welcome-sign", "aria-hidden": "true" });
  const word = h("span", { class: "unseen" });
  const title = h("strong");
  const text = h("p");
  return {
    element: h("li", null, sign, h("div", null, title, word), text),
    /** @param {Step} its */
    set(its) {
      setText(sign, SIGNS[its.tone]);
      sign.dataset.tone = its.tone;
      setText(title, its.title);
      setText(word, `, ${SIGN_WORDS[its.tone]}`);
      setText(text, its.text);
    },
  };
}

/**
 * @param {string} label
 * @param {string} text
 */
function command(label, text) {
  const copy = copies(h("button", { type: "button", title: `Copy: ${label}` }, "Copy"), () => text);
  const shown = h("pre", { tabindex: 0, "aria-label": label, role: "region" }, text);
  return h("div", null, h("dt", null, label), h("dd", null, shown, copy));
}
