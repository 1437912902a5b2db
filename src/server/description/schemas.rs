//! What goes over the wire, as JSON Schema: one set for both documents.
//!
//! Law: only keywords that mean the same in OpenAPI 3.1 (JSON Schema 2020-12) and in
//! AsyncAPI 3.0 (draft 7), and no keyword beside a `$ref`. Words that the code chooses
//! from come from the code.

use serde_json::{Map, Value, json};

use crate::{
    model::{
        CloseReason, Gap, GapReason, HoleReason, Transport, UpstreamState,
        event::NAME_BYTES_MAX,
        filter::{VALUE_BYTES_MAX, VALUES_MAX},
    },
    upstream::{self, publish},
};

use super::super::{admin::SLOWEST_SHOWN, error::Error};

/// A control event: one table row for its two forms.
pub(super) struct Control {
    /// Its name without `fanlight.`.
    pub(super) name: &'static str,
    /// The schema of its JSON form; that of the SSE data has `Data` behind it.
    pub(super) schema: &'static str,
    /// What it says.
    pub(super) meaning: &'static str,
    /// True if the SSE data holds the id too, where scripts look for it.
    pub(super) has_id_in_data: bool,
    fields: fn() -> Value,
}

/// Every control event, in the order of docs/protocol.md.
pub(super) const CONTROLS: [Control; 6] = [
    Control {
        name: "hello",
        schema: "Hello",
        meaning: "First on every stream; again on a WebSocket after its filter was replaced. Its id is \
                  where the stream begins: resuming from it gives what this stream gives.",
        has_id_in_data: true,
        fields: hello,
    },
    Control {
        name: "gap",
        schema: "Gap",
        meaning: "Records the subscriber will not get. The range is half open, `[from, to)`, in seqs of \
                  this epoch. Its id is the seq before `next`.",
        has_id_in_data: false,
        fields: gap,
    },
    Control {
        name: "hole",
        schema: "Hole",
        meaning: "The upstream connection was not healthy; what the cloud sent then is lost. It has a \
                  position of its own and is replayed in its place.",
        has_id_in_data: false,
        fields: hole,
    },
    Control {
        name: "upstream",
        schema: "Upstream",
        meaning: "The state of the upstream connection changed. It has a position of its own and is \
                  replayed in its place.",
        has_id_in_data: false,
        fields: upstream_change,
    },
    Control {
        name: "checkpoint",
        schema: "Checkpoint",
        meaning: "How far the client is, for clients whose filter passes little: its id moves the last id \
                  without an event that a page would notice.",
        has_id_in_data: false,
        fields: || json!({}),
    },
    Control {
        name: "bye",
        schema: "Bye",
        meaning: "The broker ends the stream. On a WebSocket the close frame follows.",
        has_id_in_data: false,
        fields: bye,
    },
];

/// Every schema, by name.
pub(super) fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add("Position", position());
    add("Event", event());
    add("EventMessage", event_message());
    for control in &CONTROLS {
        add(control.schema, control.json_form());
        add(&format!("{}Data", control.schema), control.sse_data());
    }
    add("ServerSentEvent", server_sent_event());
    add("StreamObject", stream_object());
    add("Subscribe", subscribe());
    add("Publish", publish_event());
    add("FunctionCall", function_call());
    add("Webhook", webhook());
    add("PollAnswer", poll_answer());
    add("LastAnswer", last_answer());
    add("Status", status());
    add("Health", health());
    add("Readiness", readiness());
    add("Error", error());
    all
}

/// A reference to one of them; it is the same in both documents.
pub(super) fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object all of whose fields are always there.
fn object(description: &str, fields: Value) -> Value {
    let names: Vec<&String> = fields.as_object().into_iter().flat_map(Map::keys).collect();
    let mut object = json!({ "type": "object", "description": description });
    if !names.is_empty() {
        object["required"] = json!(names);
    }
    object["properties"] = fields;
    object
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn words<'a>(description: &str, words: impl IntoIterator<Item = &'a str>) -> Value {
    let words: Vec<&str> = words.into_iter().collect();
    json!({ "type": "string", "enum": words, "description": description })
}

fn time(description: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": description })
}

/// A whole number that is never negative.
fn count(description: &str) -> Value {
    json!({ "type": "integer", "format": "uint64", "minimum": 0, "description": description })
}

/// A count for each of these words.
fn counts(words: &[&str]) -> Value {
    let count = json!({ "type": "integer", "format": "uint64", "minimum": 0 });
    words.iter().map(|word| ((*word).to_owned(), count.clone())).collect::<Map<_, _>>().into()
}

fn seconds(description: &str) -> Value {
    json!({ "type": "number", "minimum": 0, "description": description })
}

fn or_null(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"].take(), "null"]);
    schema
}

// === impl Control ===

impl Control {
    /// The object in NDJSON, WebSocket and poll.
    fn json_form(&self) -> Value {
        let mut fields = json!({
            "fanlight": { "const": self.name, "description": "Which control event it is." },
            "id": schema("Position"),
        });
        merge(&mut fields, (self.fields)());
        object(self.meaning, fields)
    }

    /// The data of the SSE event `fanlight.NAME`, whose id stands in its `id:` line.
    fn sse_data(&self) -> Value {
        let mut fields = match self.has_id_in_data {
            true => json!({ "id": schema("Position") }),
            false => json!({}),
        };
        merge(&mut fields, (self.fields)());
        let meaning = format!("Data of the SSE event `fanlight.{}`. {}", self.name, self.meaning);
        object(&meaning, fields)
    }
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

// === what events say ===

fn position() -> Value {
    json!({
        "type": "string",
        "pattern": "^[0-9a-hjkmnp-tv-z]{8}-(0|[1-9][0-9]{0,19})$",
        "description": "`EPOCH-SEQ`: eight characters of lower-case Crockford base32, a hyphen, and a \
                        decimal number without leading zeros. The epoch is one life of the log, the seq \
                        strictly increases. Positions can be compared for equality as text.",
        "examples": ["3xa9zhta-3"],
    })
}

/// The fields of Particle's own objects. Their data passes untouched, so nothing is
/// promised of it; what the cloud sends is said in words.
fn particle_fields() -> Value {
    json!({
        "data": { "description": "What the device published: from the Particle cloud a text, or null." },
        "ttl": { "description": "From the Particle cloud a number of seconds." },
        "published_at": { "description": "When the Particle cloud took it in, as an ISO 8601 time." },
        "coreid": { "description": "The device's id; what the `device` parameter is compared with." },
        "raw": text(
            "The data as it came, in place of all other fields, where it is no JSON object or one with \
             an `id`, `name` or `fanlight` of its own.",
        ),
    })
}

fn event_of(description: &str, mut own: Value) -> Value {
    let name = json!({
        "name": {
            "type": "string",
            "minLength": 1,
            "maxLength": NAME_BYTES_MAX,
            "description": format!("The event's name, at most {NAME_BYTES_MAX} bytes of UTF-8."),
        }
    });
    merge(&mut own, name);
    let mut schema = object(description, own);
    merge(&mut schema["properties"], particle_fields());
    schema["additionalProperties"] = json!(true);
    schema
}

fn event() -> Value {
    let description = "An event in its JSON form (NDJSON, WebSocket, poll, `/last`): the object that the \
                       upstream sent, with `id` and `name` in front, otherwise untouched. Further fields \
                       pass as they are.";
    event_of(description, json!({ "id": schema("Position") }))
}

fn event_message() -> Value {
    let description = "Data of an SSE event with `format=message`: the object that the upstream sent, with \
                       `name` in front, otherwise untouched. The position is the SSE id.";
    event_of(description, json!({}))
}

fn hello() -> Value {
    let part = |description: &str| {
        json!({
            "type": "array",
            "items": { "type": "string" },
            "maxItems": VALUES_MAX,
            "description": description,
        })
    };
    let filter = object(
        "The filter as understood: sorted, without what a shorter prefix covers.",
        json!({
            "prefix": part("Event-name prefixes."),
            "name": part("Exact event names."),
            "device": part("Device ids."),
        }),
    );
    json!({
        "version": text("The broker's version."),
        "upstream": upstream_state("State of the upstream connection."),
        "filter": filter,
    })
}

fn gap() -> Value {
    let reasons = "`evicted`: they fell out of the ring while the client was away. `overtaken`: while it was \
                   connected and did not read. `restart`: the position is of another epoch. `future`: it is \
                   past the newest of this epoch. `malformed`: what was handed back is no position. \
                   `oversize`: an upstream event was too large to keep. `refused`: its name cannot be \
                   passed on.";
    let requested = json!({
        "type": "string",
        "maxLength": Gap::REQUESTED_CHARS_MAX,
        "description": "The position the client asked to continue after, cut; null if it gave none.",
    });
    json!({
        "reason": words(reasons, GapReason::ALL.map(GapReason::as_str)),
        "requested": or_null(requested),
        "from": count("First seq missed."),
        "to": count("First seq after it that may come again."),
        "count": or_null(count(
            "Records in the range, of any name; null where nobody can know.",
        )),
        "oldest": count("Oldest seq held when the gap was declared."),
        "next": count("The seq the stream goes on with."),
    })
}

fn hole() -> Value {
    let reasons = "`ended`: the cloud ended the stream. `reset`: the connection broke. `stalled`: it fell \
                   silent. `startup`: the first attempts failed.";
    json!({
        "reason": words(reasons, HoleReason::ALL.map(HoleReason::as_str)),
        "since": time("Since when. For `stalled`, from the last byte on."),
        "until": time("Until when."),
        "count": { "type": "null", "description": "Nobody can know how many events were lost." },
    })
}

fn upstream_change() -> Value {
    json!({
        "state": upstream_state("The state now."),
        "since": time("Since when."),
        "detail": text("Why, and what to do, for people; may be empty."),
    })
}

fn upstream_state(description: &str) -> Value {
    words(description, UpstreamState::ALL.map(UpstreamState::as_str))
}

fn bye() -> Value {
    let reasons = [CloseReason::Shutdown, CloseReason::Expired, CloseReason::Full];
    json!({
        "reason": words(
            "`shutdown`: the broker ends. `expired`: the stream reached its greatest age, or the credential it \
             was opened with expired, was revoked or has other grants now. `full`: there was no room, and this is the whole answer.",
            reasons.map(CloseReason::as_str),
        ),
        "retry_ms": count("When to come back, in milliseconds; the same as `retry:` in SSE."),
    })
}

fn stream_object() -> Value {
    let controls = CONTROLS.iter().map(|control| schema(control.schema));
    let all: Vec<Value> = std::iter::once(schema("Event")).chain(controls).collect();
    json!({
        "description": "One line of NDJSON, one message of a WebSocket: an event, or a control event, which \
                        has `fanlight`.",
        "oneOf": all,
    })
}

/// As OpenAPI 3.2 describes an event of a stream: its fields, and what its data holds.
fn server_sent_event() -> Value {
    let of = |title: &str, event: Value, data: Value| {
        let mut fields = json!({
            "id": schema("Position"),
            "retry": count("When to come back if the connection breaks, in milliseconds."),
            "data": data,
        });
        let required = match event.is_null() {
            true => json!(["data"]),
            false => json!(["event", "data"]),
        };
        if !event.is_null() {
            fields["event"] = event;
        }
        json!({ "type": "object", "title": title, "required": required, "properties": fields })
    };
    let holds = |name: &str| {
        json!({
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": schema(name),
        })
    };
    let name = text("The event's name.");
    let mut all = vec![
        of("An event with format=message", Value::Null, holds("EventMessage")),
        of("An event with format=particle", name, text("The data as it came.")),
    ];
    all.extend(CONTROLS.iter().map(|control| {
        let event = json!({ "const": format!("fanlight.{}", control.name) });
        of(control.schema, event, holds(&format!("{}Data", control.schema)))
    }));
    json!({ "description": "One event of `text/event-stream`, by its fields.", "anyOf": all })
}

fn subscribe() -> Value {
    let part = |description: &str, length_min: usize| {
        json!({
            "type": "array",
            "items": {
                "type": "string",
                "minLength": length_min,
                "maxLength": VALUE_BYTES_MAX,
            },
            "maxItems": VALUES_MAX,
            "description": format!("{description} At most {VALUE_BYTES_MAX} bytes each."),
        })
    };
    let filter = json!({
        "type": "object",
        "description": "Parts that are left out pass everything.",
        "properties": {
            "prefix": part("Event-name prefixes; an empty one means every name.", 0),
            "name": part("Exact event names.", 1),
            "device": part("Device ids.", 1),
        },
        "additionalProperties": false,
    });
    let mut schema = object(
        "What a client may say over a WebSocket: replace the filter from now on; the position stays.",
        json!({ "subscribe": filter }),
    );
    schema["additionalProperties"] = json!(false);
    schema
}

fn webhook() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "description": "An event, as a webhook of the Particle cloud posts it; `name` is taken for `event` and \
                        `device_id` for `coreid`. Without all four it cannot be told from a copy.",
        "required": ["event", "published_at", "coreid"],
        "properties": {
            "event": text("Its name."),
            "data": { "description": "Its data. What is no text is taken for the JSON that a text holds." },
            "published_at": { "type": "string", "format": "date-time", "description": "When the cloud got it." },
            "coreid": text("The device."),
            "ttl": { "description": "Passed on, as `userid`, `fw_version`, `public` and `productID` are." },
        },
        "additionalProperties": true,
    })
}

fn publish_event() -> Value {
    json!({
        "type": "object",
        "description": "An event to be published. Further fields are left out.",
        "required": ["name"],
        "properties": {
            "name": {
                "type": "string",
                "minLength": 1,
                "maxLength": publish::NAME_BYTES_MAX,
                "pattern": "^[!-~]+$",
                "description": "Its name, which may not begin with `particle` or `spark` in any case, nor \
                                with `fanlight.`.",
            },
            "data": {
                "description": format!(
                    "Its data: a text of at most {} bytes, or of {} as a data URL.",
                    publish::DATA_BYTES_MAX,
                    publish::DATA_URL_BYTES_MAX,
                ),
            },
            "private": { "description": "Passed on." },
            "ttl": { "description": "Passed on." },
        },
        "additionalProperties": true,
    })
}

fn function_call() -> Value {
    let argument = json!({
        "type": "string",
        "maxLength": publish::ARGUMENT_BYTES_MAX,
        "description": "The argument.",
    });
    json!({
        "type": "object",
        "description": "What a function is called with; `args` as older clients spell it.",
        "properties": { "arg": argument, "args": argument },
        "additionalProperties": true,
    })
}

// === answers ===

fn poll_answer() -> Value {
    let objects: Vec<Value> = ["Event", "Gap", "Hole", "Upstream"].map(schema).to_vec();
    object(
        "Everything after a position.",
        json!({
            "events": {
                "type": "array",
                "items": { "oneOf": objects },
                "description": "Events and control records, oldest first.",
            },
            "next": schema("Position"),
            "gap": {
                "oneOf": [schema("Gap"), { "type": "null" }],
                "description": "What was missed before the first of `events`.",
            },
        }),
    )
}

fn last_answer() -> Value {
    json!({
        "type": "array",
        "items": schema("Event"),
        "description": "The newest event of each (name, device), in order of position.",
    })
}

fn error() -> Value {
    let names = Error::samples().map(|error| error.name());
    let mut distinct: Vec<&str> = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    let mut schema = object(
        "Every error that the broker answers itself.",
        json!({
            "error": words("Which one, for programs.", distinct),
            "error_description": text("What is wrong and what is allowed, for people."),
        }),
    );
    let further = json!({
        "ok": { "const": false, "description": "With `404` below `/v1`, as the cloud has it." },
        "info": text("With `403` below `/v1`, as the cloud has it."),
    });
    merge(&mut schema["properties"], further);
    schema
}

fn health() -> Value {
    object("The process is alive.", json!({ "status": { "const": "ok" } }))
}

fn readiness() -> Value {
    let mut schema = object("Ready to serve.", json!({ "status": { "const": "ready" } }));
    schema["properties"]["upstream"] = upstream_state(
        "The upstream's state, if it is not live: away for no longer than `server.ready_after`.",
    );
    schema
}

fn status() -> Value {
    object(
        "Everything at a glance. Fields may be added.",
        json!({
            "version": text("The broker's version."),
            "uptime_seconds": count("Since the start."),
            "now": time("The broker's own time."),
            "closing": { "type": "boolean", "description": "True while the broker shuts down." },
            "upstream": status_upstream(),
            "ring": status_ring(),
            "latest": object("The newest event of each (name, device).", json!({
                "entries": count("Events held."),
                "bytes": count("Memory they hold."),
                "evicted": count("Events that fell out."),
            })),
            "subscribers": status_subscribers(),
            "publish": object("What is passed on to the cloud.", json!({
                "enabled": { "type": "boolean", "description": "Events are." },
                "functions": { "type": "boolean", "description": "Function calls are." },
            })),
            "ingest": object("Webhooks as a second way in.", json!({
                "enabled": { "type": "boolean", "description": "They are taken in." },
                "copies": count("Webhooks whose event was there already."),
                "copies_of_stream": count("Events of the stream that a webhook had brought."),
            })),
            "access": object("Who may come in.", json!({
                "mode": words("Whether it is asked who comes.", ["on", "off"]),
                "keys": count("API keys that are good."),
                "token_keys": count("Keys that JSON Web Tokens are checked with."),
            })),
            "limits": object("Connections, and their memory.", json!({
                "connections": count("Open now."),
                "connections_max": count("As many there may be."),
                "connections_per_ip_max": or_null(count("From one address; null for no limit.")),
                "memory_bytes": count("Of the ring, the newest values and all connections, as the limit counts it."),
                "memory_bytes_max": count("As much it may be."),
            })),
        }),
    )
}

fn status_upstream() -> Value {
    let opens = counts(&upstream::OUTCOMES.map(|outcome| outcome.as_str()));
    let mut holes = hole();
    if let Some(fields) = holes.as_object_mut() {
        fields.remove("count");
    }
    let holes = object("A window in which events may have been lost.", holes);
    object(
        "Where events come from.",
        json!({
            "source": text("The kind of source."),
            "state": upstream_state("The state now."),
            "since": time("Since when."),
            "detail": text("Why, for people; may be empty."),
            "live_last": or_null(time("When it was last live; null if it never was.")),
            "last_byte_age_seconds": or_null(seconds("Since the last byte; null if there was none.")),
            "silence_max_seconds": seconds("Longest silence within a live stream."),
            "streams": count("Streams open now."),
            "events": count("Events passed on."),
            "bytes": count("Bytes received."),
            "copies": count("Events dropped because another stream had brought them."),
            "twins": count("Events passed on that equal another one, while streams were compared."),
            "window_overflows": count("Events that a second stream had not brought in time."),
            "holes": count("Times the stream was away."),
            "hole_seconds": seconds("How long together."),
            "opens": object("Attempts to connect, by outcome.", opens),
            "opens_in_window": count("Attempts that count towards the budget now."),
            "opens_max": count("The budget."),
            "next_open_in_seconds": or_null(seconds("Until the next attempt; null if none is due.")),
            "stale_after_seconds": seconds("Silence after which the stream is given up."),
            "history": {
                "type": "array",
                "items": object("A change of state.", upstream_change()),
                "description": "The newest changes of state, oldest first.",
            },
            "holes_newest": {
                "type": "array",
                "items": holes,
                "description": "The newest holes, oldest first.",
            },
        }),
    )
}

fn status_ring() -> Value {
    object(
        "What is held for replay.",
        json!({
            "epoch": text("The life of the log."),
            "oldest": count("Oldest seq held."),
            "tail": count("The seq that the next record will get."),
            "events": count("Records held."),
            "events_max": count("As many there may be."),
            "bytes": count("Memory they hold."),
            "bytes_max": count("As much it may be."),
            "oldest_age_seconds": or_null(seconds("Age of the oldest; null if there is none.")),
            "newest_age_seconds": or_null(seconds("Age of the newest; null if there is none.")),
            "evicted": count("Records that fell out."),
        }),
    )
}

fn status_subscribers() -> Value {
    let transports = Transport::ALL.map(Transport::as_str);
    let slowest = object(
        "A subscriber.",
        json!({
            "id": count("Its number."),
            "transport": words("How it is served.", transports),
            "seconds": count("How long it has been here."),
            "lag_events": count("How many records it is behind."),
        }),
    );
    object(
        "Who reads.",
        json!({
            "total": count("Subscribers."),
            "groups": count("Different filters."),
            "by_transport": object("Subscribers by transport.", counts(&transports)),
            "slowest": {
                "type": "array",
                "items": slowest,
                "maxItems": SLOWEST_SHOWN,
                "description": "Those furthest behind.",
            },
            "opened": count("Subscriptions begun."),
            "closed": object("Subscriptions ended, by reason.", counts(&CloseReason::ALL.map(CloseReason::as_str))),
            "gaps": object("Gaps told, by reason.", counts(&GapReason::ALL.map(GapReason::as_str))),
            "deliveries": count("Events handed to connections."),
            "delivered_bytes": count("Bytes of the writes that carried them."),
        }),
    )
}
