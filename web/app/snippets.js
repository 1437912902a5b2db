// A subscription as programs that run: shell, JavaScript, Python, Node-RED. Pure.
//
// Law: each snippet can be pasted and run as it is, whatever stands in the subscription; it
// comes back after a failure where it was, and shows what the broker says.

import { flow } from "./nodered.js";
import * as quote from "./quote.js";
import { LISTS, encode, endpoint, query, url } from "./subscription.js";

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

// === JavaScript ===

/** @param {Subscription} subscription @param {string} base */
function browser(subscription, base) {
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
function node(subscription, base) {
  const { transport, position, start, limit } = subscription;
  const pairs = literals(query(subscription).filter(([name]) => !["last_event_id", "after", "since", "limit", "timeout"].includes(name)), quote.javascript, "  [", "]");
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

// === Python ===

/** @param {Subscription} subscription @param {string} base */
function python(subscription, base) {
  const { transport, position, start, limit, format } = subscription;
  const pairs = literals(query(subscription).filter(([name]) => !["last_event_id", "after", "since", "limit"].includes(name)), quote.python, "    (", ")");
  const since = query(subscription).find(([name]) => name === "since")?.[1] ?? "";
  const head = `URL = ${quote.python(endpoint(base, transport))}
PARAMS = ${pairs}
SINCE = ${quote.python(since)}
LIMIT = ${quote.python(limit)}
last_id = ${quote.python(start === "position" ? position : "")}  # keep it to go on later
seen = 0


def address(resume):
    query = list(PARAMS)
    if last_id and resume:
        query.append((resume, last_id))
    elif SINCE and not last_id:
        query.append(("since", SINCE))
    if LIMIT:
        query.append(("limit", max(1, int(LIMIT) - seen) if LIMIT.isdecimal() else LIMIT))
    return URL + "?" + urllib.parse.urlencode(query)


def show(event):
    global seen
    print(json.dumps(event, ensure_ascii=False), flush=True)
    if "fanlight" not in event:
        seen += 1
    if LIMIT and seen >= int(LIMIT):
        sys.exit()
`;
  if (transport === "ws") {
    return {
      note: "Needs the package websockets: pip install websockets",
      text: `import json
import random
import sys
import time
import urllib.parse

from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

${head}

while True:
    try:
        with connect(address("last_event_id"), subprotocols=["fanlight.v1"]) as socket:
            for message in socket:
                event = json.loads(message)
                last_id = event.get("id", last_id)
                show(event)
    except InvalidStatus as error:
        print(error.response.body.decode(), file=sys.stderr)
        if error.response.status_code < 500 and error.response.status_code != 429:
            sys.exit(1)
    except (OSError, WebSocketException) as error:
        print(error, file=sys.stderr)
    time.sleep(random.uniform(1, 5))
`,
    };
  }
  const named = format === "particle"
    ? `{"fanlight": kind[9:], **json.loads(text)} if kind.startswith("fanlight.") else {"name": kind, "text": text}`
    : `{"fanlight": kind[9:], **json.loads(text)} if kind else json.loads(text)`;
  const turn = {
    sse: `def read():
    """Reads one stream to its end."""
    global last_id
    request = urllib.request.Request(address(None), headers={"Accept": "text/event-stream"})
    if last_id:
        request.add_header("Last-Event-ID", urllib.parse.quote(last_id, safe=""))
    with urllib.request.urlopen(request, timeout=60) as stream:
        ident, kind, data = last_id, "", []
        for line in stream:
            line = line.decode().rstrip("\\n")
            field, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if field == "id":
                ident = value
            elif field == "event":
                kind = value
            elif field == "data":
                data.append(value)
            elif not line:
                last_id = ident
                if data:
                    text = "\\n".join(data)
                    event = ${named}
                    show({"id": ident, **event})
                kind, data = "", []
    return False`,
    ndjson: `def read():
    """Reads one stream to its end."""
    global last_id
    request = urllib.request.Request(address(None), headers={"Accept": "application/x-ndjson"})
    if last_id:
        request.add_header("Last-Event-ID", urllib.parse.quote(last_id, safe=""))
    with urllib.request.urlopen(request, timeout=60) as stream:
        for line in filter(bytes.strip, stream):
            event = json.loads(line)
            last_id = event.get("id", last_id)
            show(event)
    return False`,
    poll: `def read():
    """Asks once, and waits for the answer."""
    global last_id
    with urllib.request.urlopen(address("after"), timeout=60) as answer:
        answer = json.load(answer)
    if answer["gap"]:
        show({"fanlight": "gap", **answer["gap"]})
    for event in answer["events"]:
        show(event)
    last_id = answer["next"]
    return True`,
  }[transport];
  return {
    note: "Python 3.8 or newer, nothing to install.",
    text: `import http.client
import json
import random
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

${head}

${turn}


while True:
    goes_on = False
    try:
        goes_on = read()
    except urllib.error.HTTPError as error:
        print(error.read().decode(), file=sys.stderr)
        if error.code < 500 and error.code != 429:
            sys.exit(1)
    except (OSError, http.client.HTTPException) as error:
        print(error, file=sys.stderr)
    if not goes_on:
        time.sleep(random.uniform(1, 5))
`,
  };
}

/**
 * A list of pairs as a literal.
 * @param {[string, string][]} pairs
 * @param {(text: string) => string} text
 * @param {string} open
 * @param {string} close
 */
const literals = (pairs, text, open, close) =>
  pairs.length === 0 ? "[]" : `[\n${pairs.map(([name, value]) => `${open}${text(name)}, ${text(value)}${close},\n`).join("")}]`;
