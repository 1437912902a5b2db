import { h } from "../dom.js";

/** @param {import("../main.js").Context} context @returns {import("../main.js").View} */
export function events(context) {
  return { element: h("p", { class: "plain" }, "events"), show() {} };
}
