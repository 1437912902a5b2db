import { h } from "../dom.js";

/** @param {import("../main.js").Context} context @returns {import("../main.js").View} */
export function tryIt(context) {
  return { element: h("p", { class: "plain" }, "try"), show() {} };
}
