// A subscription as JavaScript: for a page, with the broker's own client, and for Node.js,
// with nothing but Node.js. Pure.

import * as quote from "../page/quote.js";
import { LISTS, endpoint, query } from "./subscription.js";

/** @typedef {import("./subscription.js").Subscription} Subscription */

/** @param {Subscription} subscription @param {string} base */
export function browser(subscription, base) {
  const { start, since, position, snapshot, control, limit } = subscription;
  const options = LISTS.filter((name) => subscription[name].length > 0)
    .map((name) => `  ${name}: [${subscription[name].map(quote.javascript).join(", ")}],\n`);
  if (start === "since") options.push(`  since: ${quote.javascript(since)},\n`);
  if (start === "earliest") options.push(`  since: "earliest",\n`);
  if (start === "position") options.push(`  lastEventId: ${quote.javascript(position)},\n`);
  if (snapshot) options.push("  snapshot: true,\n");
  const number = Number(limit);
  const counts = limit !== "" && Number.isInteger(number) && number > 0;
  return `import { connect } from ${quote.javascript(`${base}fanlight.js`)};
${counts ? `\nlet left = ${number};` : ""}
const connection = connect(${quote.javascript(base)}, {
${options.join("")}  onEvent(event) {
    console.log(event.id, event.name, event.data ?? event.raw);${counts ? "\n    left -= 1;\n    if (left === 0) connection.close();" : ""}
  },
${control ? `  onGap(gap) {
    console.warn("missed", gap.count ?? "an unknown number of", "records:", gap.reason);
  },
  onHole(hole) {
    console.warn("no connection to the cloud from", hole.since, "to", hole.until);
  },
` : ""}  onState(state) {
    console.info(state.state, state.reason ?? "");
  },
});
`;
}

/** @param {Subscription} subscription @param {string} base */
export function node(subscription, base) {
  const { transport, position, start, limit } = subscription;
  const pairs = quote.pairs(query(subscription).filter(([name]) => !["last_event_id", "after", "since", "limit", "timeout"].includes(name)), quote.javascript, "  [", "]");
  const since = query(subscription).find(([name]) => name === "since")?.[1] ?? "";
  const head = `const url = ${quote.javascript(endpoint(base, transport))};
const params = ${pairs};
const since = ${quote.javascript(since)};
const limit = ${quote.javascript(limit)};
let lastId = ${quote.javascript(start === "position" ? position : "")};   // keep it to go on later
let seen = 0;

function address(resume) {
  const query = new URLSearchParams(params);
  if (lastId) query.set(resume, lastId);
  else if (since) query.set("since", since);
  if (limit) query.set("limit", /^\\d+$/.test(limit) ? Math.max(1, limit - seen) : limit);
  return query.size ? \`\${url}?\${query}\` : url;
}

function show(event) {
  console.log(JSON.stringify(event));
  if (event.fanlight === undefined) seen += 1;
  if (limit && seen >= Number(limit)) process.exit();
}

const pause = () => new Promise((go) => setTimeout(go, 1000 + 4000 * Math.random()));
const refused = async (answer) => {
  console.error(await answer.text());
  if (answer.status < 500 && answer.status !== 429) process.exit(1);
};
`;
  if (transport === "ws") {
    return {
      note: "Node.js 22 or newer. Save it as events.mjs.",
      text: `${head}
function open() {
  const socket = new WebSocket(address("last_event_id"), ["fanlight.v1"]);
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.id) lastId = event.id;
    show(event);
  };
  socket.onclose = async ({ code, reason }) => {
    console.error("closed", code, reason);
    await pause();
    open();
  };
}
open();
`,
    };
  }
  const turn = {
    sse: `  const answer = await fetch(address("last_event_id"), { headers: { accept: "text/event-stream" } });
  if (!answer.ok) return refused(answer);
  let id = lastId, kind = "", data = [], rest = "";
  for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split("\\n");
    rest = lines.pop();
    for (const line of lines) {
      const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
      if (field === "id") id = value;
      else if (field === "event") kind = value;
      else if (field === "data") data.push(value);
      else if (line === "") {
        lastId = id;
        if (data.length) show({ id, ...named(kind, data.join("\\n")) });
        kind = "", data = [];
      }
    }
  }`,
    ndjson: `  const answer = await fetch(address("last_event_id"), { headers: { accept: "application/x-ndjson" } });
  if (!answer.ok) return refused(answer);
  let rest = "";
  for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split("\\n");
    rest = lines.pop();
    for (const line of lines.filter(Boolean)) {
      const event = JSON.parse(line);
      if (event.id) lastId = event.id;
      show(event);
    }
  }`,
    poll: `  const answer = await fetch(address("after"));
  if (!answer.ok) return refused(answer);
  const { events, next, gap } = await answer.json();
  if (gap) show({ fanlight: "gap", ...gap });
  events.forEach(show);
  lastId = next;
  return true;`,
  }[transport];
  const named = transport !== "sse" ? "" : subscription.format === "particle"
    ? `
// In this format the name stands beside the data, which is the cloud's own.
const named = (kind, data) => (kind.startsWith("fanlight.") ? { fanlight: kind.slice(9), ...JSON.parse(data) } : { name: kind, text: data });
`
    : `
const named = (kind, data) => (kind ? { fanlight: kind.replace("fanlight.", ""), ...JSON.parse(data) } : JSON.parse(data));
`;
  return {
    note: "Node.js 20 or newer, nothing to install. Save it as events.mjs.",
    text: `${head}${named}
async function read() {
${turn}
}

for (;;) {
  const on = await read().catch((error) => console.error(String(error.cause ?? error)));
  if (!on) await pause();
}
`,
  };
}
