// Publishing an event through the broker, where it passes events on.
//
// Law: what the broker or the cloud answers is shown as it says it; nothing is sent twice.

import { h } from "../page/dom.js";

/** An answer that takes longer is given up; the broker's own limit is shorter. */
const TIMEOUT_MS = 90_000;

/**
 * @param {import("../main.js").Context} context
 * @returns {HTMLElement} hidden while the broker passes nothing on
 */
export function publishing({ status }) {
  const name = h("input", { id: "publish-name", required: true, maxlength: 64, spellcheck: "false", autocapitalize: "off", placeholder: "greenhouse/setpoint" });
  const data = h("textarea", { id: "publish-data", rows: 2, spellcheck: "false", placeholder: "21.5" });
  const button = h("button", { class: "primary" }, "Publish");
  const answer = h("p", { role: "status", class: "publish-answer" });
  const form = h("form", { class: "card publish", "aria-labelledby": "publish-title", hidden: true, onsubmit: send },
    h("h2", { id: "publish-title" }, "Publish an event"),
    h("p", { class: "muted" }, "It goes to the Particle cloud with the broker's token, and comes back on the stream from there."),
    h("div", { class: "field" }, h("label", { for: name.id }, "Name"), name),
    h("div", { class: "field" }, h("label", { for: data.id }, "Data"), data),
    h("div", { class: "wrap" }, button, answer));
  status.watch(({ now }) => { form.hidden = !now?.publish?.enabled; });
  return form;

  /** @param {Event} event */
  async function send(event) {
    event.preventDefault();
    button.disabled = true;
    answer.textContent = "On its way…";
    try {
      const reply = await fetch("v1/devices/events", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ name: name.value, data: data.value, private: true }),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      const body = await reply.json().catch(() => ({}));
      answer.textContent = reply.ok ? "Published." : body.error_description ?? body.error ?? `The broker answered ${reply.status}.`;
    } catch {
      answer.textContent = "No answer: nobody knows whether it was published.";
    }
    button.disabled = false;
  }
}
