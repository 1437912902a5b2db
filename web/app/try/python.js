// A subscription as Python: its standard library alone, but for WebSockets. Pure.

import * as quote from "../page/quote.js";
import { endpoint, query } from "./subscription.js";

/** @typedef {import("./subscription.js").Subscription} Subscription */

/** @param {Subscription} subscription @param {string} base */
export function python(subscription, base) {
  const { transport, position, start, limit, format } = subscription;
  const pairs = quote.pairs(query(subscription).filter(([name]) => !["last_event_id", "after", "since", "limit"].includes(name)), quote.python, "    (", ")");
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
