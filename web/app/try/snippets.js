// A subscription as programs that run: shell, JavaScript, Python, Node-RED. Pure.
//
// Law: each snippet can be pasted and run as it is, whatever stands in the subscription; it
// comes back after a failure where it was, and shows what the broker says.

import { browser, node } from "./javascript.js";
import { flow } from "./nodered.js";
import { python } from "./python.js";
import * as quote from "../page/quote.js";
import { encode, endpoint, query, url } from "./subscription.js";

/** @typedef {import("./subscription.js").Subscription} Subscription */
/** @typedef {{id: string, label: string, note: string, text: string}} Snippet */

/**
 * @param {Subscription} subscription
 * @param {string} base URL of the broker, with a slash at its end
 * @returns {Snippet[]}
 */
export function snippets(subscription, base) {
  return [
    { id: "curl", label: "curl", ...curl(subscription, base) },
    { id: "jq", label: "Shell and jq", note: "Needs jq. Events as columns; gaps, holes and errors as JSON.", text: jq(subscription, base) },
    { id: "browser", label: "Browser", note: "For a page of the same origin as the broker. It reconnects, resumes and drops repeats by itself.", text: browser(subscription, base) },
    { id: "node", label: "Node.js", ...node(subscription, base) },
    { id: "python", label: "Python", ...python(subscription, base) },
    { id: "nodered", label: "Node-RED", ...flow(subscription, base) },
  ];
}

// === shell ===

/** @param {Subscription} subscription @param {string} base */
function curl(subscription, base) {
  const whole = url(base, subscription);
  // curl reads brackets and braces as patterns unless told not to.
  const globs = /[[\]{}]/.test(whole) ? " -g" : "";
  switch (subscription.transport) {
    case "ws":
      return { note: "curl speaks no WebSocket that one could read: this is websocat.", text: `websocat ${quote.shell(whole)}\n` };
    case "poll": {
      const pairs = query(subscription);
      const first = pairs.filter(([name]) => name === "after" || name === "since");
      const rest = encode([["timeout", "25"], ...pairs.filter((pair) => !first.includes(pair))]);
      return {
        note: "Needs jq. Each answer says where the next begins.",
        text: `url=${quote.shell(`${endpoint(base, "poll")}?${rest}`)}
from=${quote.shell(encode(first.length ? first : [["after", ""]]))}
while answer=$(curl -sS${globs} --fail-with-body "$url&$from") || { printf '%s\\n' "$answer" >&2; false; }; do
  printf '%s\\n' "$answer" | jq -c '.gap // empty, .events[]' || break
  from=after=$(printf '%s\\n' "$answer" | jq -r .next)
done
`,
      };
    }
    case "ndjson":
      return { note: "One JSON object a line.", text: `curl -N${globs} -H 'Accept: application/x-ndjson' ${quote.shell(whole)}\n` };
    default:
      return { note: "To go on later, add -H 'Last-Event-ID: …' with the last id.", text: `curl -N${globs} ${quote.shell(whole)}\n` };
  }
}

/** @param {Subscription} subscription @param {string} base */
function jq(subscription, base) {
  const whole = url(base, { ...subscription, transport: "ndjson" });
  const globs = /[[\]{}]/.test(whole) ? " -g" : "";
  return `curl -sSN${globs} -H 'Accept: application/x-ndjson' ${quote.shell(whole)} |
  jq --unbuffered -r 'if .name
    then [.published_at, .name, .coreid, (.data // .raw // "" | tostring)] | @tsv
    else tojson end'
`;
}
