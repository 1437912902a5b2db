// A subscription as a flow that Node-RED imports, of its own nodes alone. Pure.
//
// By WebSocket it is one node. Otherwise it polls: Node-RED's HTTP node reads no streams,
// and polls resume by themselves.

import * as quote from "../page/quote.js";
import { encode, endpoint, query, url } from "./subscription.js";

/**
 * @param {import("./subscription.js").Subscription} subscription
 * @param {string} base
 */
export function flow(subscription, base) {
  const ws = subscription.transport === "ws";
  return {
    note: ws ? "Menu, Import, paste. Node-RED reconnects by itself, but from the same start: for resuming choose long poll."
      : "Menu, Import, paste. It polls, which resumes by itself: Node-RED reads no event streams without further nodes.",
    text: `${JSON.stringify(ws ? socket(subscription, base) : polls(subscription, base), null, 2)}\n`,
  };
}

/** @param {import("./subscription.js").Subscription} subscription @param {string} base */
function socket(subscription, base) {
  return [
    { id: "fanlight-tab", type: "tab", label: "Fanlight" },
    { id: "fanlight-client", type: "websocket-client", path: url(base, subscription), tls: "", wholemsg: "false", hb: "0", subprotocol: "fanlight.v1", headers: [] },
    { id: "fanlight-in", z: "fanlight-tab", type: "websocket in", name: "Fanlight", server: "", client: "fanlight-client", x: 120, y: 80, wires: [["fanlight-json"]] },
    { id: "fanlight-json", z: "fanlight-tab", type: "json", name: "", property: "payload", action: "obj", pretty: false, x: 290, y: 80, wires: [["fanlight-debug"]] },
    debug(460, 80),
  ];
}

/** @param {import("./subscription.js").Subscription} subscription @param {string} base */
function polls(subscription, base) {
  const pairs = query({ ...subscription, transport: "poll" });
  const first = pairs.filter(([name]) => name === "after" || name === "since");
  const rest = encode([["timeout", "25"], ...pairs.filter((pair) => !first.includes(pair))]);
  const ask = `const next = flow.get("fanlightNext");
msg.method = "GET";
msg.url = ${quote.javascript(`${endpoint(base, "poll")}?${rest}`)} +
  (next ? "&after=" + encodeURIComponent(next) : ${quote.javascript(first.length ? `&${encode(first)}` : "")});
msg.requestTimeout = 60000;
return msg;`;
  const take = `// Outputs: each event and gap; ask again at once; ask again later.
const { events, next, gap } = msg.payload ?? {};
if (msg.statusCode !== 200 || !Array.isArray(events)) {
  node.error(JSON.stringify(msg.payload), { statusCode: msg.statusCode });
  return [null, null, {}];
}
flow.set("fanlightNext", next);
const found = gap ? [{ fanlight: "gap", ...gap }, ...events] : events;
return [found.map((event) => ({ topic: event.name ?? "fanlight." + event.fanlight, payload: event })), {}, null];`;
  return [
    { id: "fanlight-tab", type: "tab", label: "Fanlight" },
    { id: "fanlight-start", z: "fanlight-tab", type: "inject", name: "at start", props: [], repeat: "", crontab: "", once: true, onceDelay: 1, topic: "", x: 110, y: 80, wires: [["fanlight-ask"]] },
    { id: "fanlight-ask", z: "fanlight-tab", type: "function", name: "ask", func: ask, outputs: 1, x: 250, y: 80, wires: [["fanlight-http"]] },
    { id: "fanlight-http", z: "fanlight-tab", type: "http request", name: "Fanlight", method: "use", ret: "obj", paytoqs: "ignore", url: "", tls: "", persist: false, x: 390, y: 80, wires: [["fanlight-take"]] },
    { id: "fanlight-take", z: "fanlight-tab", type: "function", name: "take", func: take, outputs: 3, x: 530, y: 80, wires: [["fanlight-debug"], ["fanlight-ask"], ["fanlight-later"]] },
    { id: "fanlight-later", z: "fanlight-tab", type: "delay", name: "", pauseType: "delay", timeout: "5", timeoutUnits: "seconds", x: 530, y: 160, wires: [["fanlight-ask"]] },
    debug(690, 60),
  ];
}

/** @param {number} x @param {number} y */
const debug = (x, y) => ({ id: "fanlight-debug", z: "fanlight-tab", type: "debug", name: "event", active: true, tosidebar: true, console: false, complete: "payload", targetType: "msg", x, y, wires: [] });
