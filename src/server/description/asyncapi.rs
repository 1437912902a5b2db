//! The AsyncAPI 3.0 document: what comes and goes on the streams, message by message.
//!
//! Law: the schemas are those of the OpenAPI document. The application that it describes is
//! the broker: it *sends* events and *receives* `subscribe`.

use serde_json::{Map, Value, json};

use crate::transport::parameter::Route;

use super::{
    LICENCE, TITLE, VERSION,
    examples::{self, Example},
    openapi::{parameter_meaning, parameter_schema},
    schemas::{CONTROLS, Control, schema, schemas},
};

/// A way to read the stream.
struct Channel {
    id: &'static str,
    address: &'static str,
    title: &'static str,
    description: &'static str,
    route: Route,
    form: Form,
}

/// How its messages look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Sse,
    Json,
}

const CHANNELS: &[Channel] = &[
    Channel {
        id: "sse",
        address: "/events",
        title: "Server-sent events",
        description: "`text/event-stream`. A message's fields `id`, `event` and `retry` are described as its \
                      headers, its `data` as its payload.",
        route: Route::Events,
        form: Form::Sse,
    },
    Channel {
        id: "ndjson",
        address: "/events",
        title: "Newline-delimited JSON",
        description: "The same path with `Accept: application/x-ndjson`: one object a line. An empty line is \
                      a keep-alive.",
        route: Route::Events,
        form: Form::Json,
    },
    Channel {
        id: "websocket",
        address: "/ws",
        title: "WebSocket",
        description: "One object a text message, subprotocol `fanlight.v1`. Close codes: 1000 `limit` \
                      reached, 1001 after a bye, 1008 a message that cannot be understood, 1009 one that is \
                      too large, 1013 no answer to a ping.",
        route: Route::WebSocket,
        form: Form::Json,
    },
];

/// The document.
pub(super) fn document() -> Value {
    let channels: Map<String, Value> =
        CHANNELS.iter().map(|channel| (channel.id.to_owned(), channel.render())).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": TITLE,
            "version": VERSION,
            "description": "What the broker sends on its streams, and what it understands. Every stream \
                            begins with hello and is one order of records; what is missing is told by gap \
                            and hole. Requests and answers are described in [openapi.json](openapi.json).",
            "license": { "name": LICENCE },
        },
        "defaultContentType": "application/json",
        "servers": { "http": server("http"), "websocket": server("ws") },
        "channels": channels,
        "operations": operations(),
        "components": { "schemas": schemas(), "messages": messages() },
    })
}

/// Where the broker is only who reads the document can know.
fn server(protocol: &str) -> Value {
    json!({
        "host": "{host}",
        "pathname": "{base}",
        "protocol": protocol,
        "description": "The broker that sent this document. Behind a proxy with TLS it is the secure form of \
                        the protocol.",
        "variables": {
            "host": { "default": "127.0.0.1:8080", "description": "Host and port of this document." },
            "base": { "default": "", "description": "The path before `/asyncapi.json`." },
        },
    })
}

fn operations() -> Value {
    let mut operations = Map::new();
    for channel in CHANNELS {
        let Channel { id, title, form, .. } = channel;
        let refers = |name: &str| json!({ "$ref": format!("#/channels/{id}/messages/{name}") });
        let name = |what: &str| format!("{id}{what}");
        let mut add = |id: String, title: String, summary: &str, messages: Vec<Value>| {
            let mut operation = json!({
                "action": "send",
                "channel": { "$ref": format!("#/channels/{}", channel.id) },
                "title": title,
                "summary": summary,
                "messages": messages,
            });
            if channel.route == Route::Events {
                // A WebSocket has its query at the channel.
                let binding = json!({ "method": "GET", "query": channel.query() });
                operation["bindings"] = json!({ "http": binding });
            }
            operations.insert(id, operation);
        };
        let events: Vec<Value> = form.events().iter().map(|message| refers(message)).collect();
        add(name("Events"), format!("Events, {title}"), "What devices published.", events);
        let controls = CONTROLS.iter().map(|control| refers(control.name)).collect();
        let summary = "What the broker says of the stream; none with `control=off`.";
        add(name("Controls"), format!("Control events, {title}"), summary, controls);
    }
    let reply = json!({
        "channel": { "$ref": "#/channels/websocket" },
        "messages": [{ "$ref": "#/channels/websocket/messages/hello" }],
    });
    let subscribe = json!({
        "action": "receive",
        "channel": { "$ref": "#/channels/websocket" },
        "title": "Subscribe",
        "summary": "A client replaces its filter; a hello confirms it.",
        "messages": [{ "$ref": "#/channels/websocket/messages/subscribe" }],
        "reply": reply,
    });
    operations.insert("websocketSubscribe".to_owned(), subscribe);
    operations.into()
}

/// Every message, by its form and name.
fn messages() -> Value {
    let examples = examples::all();
    let mut messages = Map::new();
    for form in [Form::Sse, Form::Json] {
        for name in form.events() {
            messages.insert(form.component(name), form.event(name, &examples));
        }
        for control in &CONTROLS {
            messages.insert(form.component(control.name), form.control(control, &examples));
        }
    }
    let shown = json!([{ "name": "prefix", "payload": examples::subscribe() }]);
    let subscribe = json!({
        "name": "subscribe",
        "title": "Subscribe",
        "summary": "A client replaces its filter from now on; the position stays.",
        "payload": schema("Subscribe"),
        "examples": shown,
    });
    messages.insert("subscribe".to_owned(), subscribe);
    messages.into()
}

// === impl Channel ===

impl Channel {
    fn render(&self) -> Value {
        let controls = CONTROLS.iter().map(|control| control.name);
        let mut messages: Map<String, Value> = self
            .form
            .events()
            .iter()
            .copied()
            .chain(controls)
            .map(|name| (name.to_owned(), message(&self.form.component(name))))
            .collect();
        let is_websocket = self.route == Route::WebSocket;
        if is_websocket {
            messages.insert("subscribe".to_owned(), message("subscribe"));
        }
        let server = if is_websocket { "websocket" } else { "http" };
        let mut channel = json!({
            "address": self.address,
            "title": self.title,
            "description": self.description,
            "servers": [{ "$ref": format!("#/servers/{server}") }],
            "messages": messages,
        });
        if is_websocket {
            channel["bindings"] = json!({ "ws": { "method": "GET", "query": self.query() } });
        }
        channel
    }

    /// The query's parameters as one object.
    fn query(&self) -> Value {
        let mut properties = Map::new();
        for parameter in self.route.parameters() {
            let mut schema = parameter_schema(parameter, self.route);
            schema["description"] = json!(parameter_meaning(parameter));
            for name in std::iter::once(&parameter.name).chain(parameter.spellings) {
                properties.insert((*name).to_owned(), schema.clone());
            }
        }
        json!({ "type": "object", "properties": properties, "additionalProperties": false })
    }
}

fn message(component: &str) -> Value {
    json!({ "$ref": format!("#/components/messages/{component}") })
}

// === impl Form ===

impl Form {
    /// The events that are no control events.
    fn events(self) -> &'static [&'static str] {
        match self {
            Form::Sse => &["event", "particleEvent"],
            Form::Json => &["event"],
        }
    }

    fn component(self, name: &str) -> String {
        match self {
            Form::Sse => format!("sse.{name}"),
            Form::Json => format!("json.{name}"),
        }
    }

    fn event(self, name: &str, examples: &[Example]) -> Value {
        let of_devices = examples.iter().filter(|example| example.control.is_none());
        match (self, name) {
            (Form::Json, _) => json!({
                "name": name,
                "title": "Event",
                "summary": "What a device published.",
                "payload": schema("Event"),
                "examples": of_devices.map(|example| self.example(example)).collect::<Vec<_>>(),
            }),
            (Form::Sse, "event") => json!({
                "name": name,
                "title": "Event",
                "summary": "What a device published, with `format=message`. It has no `event:` line, so \
                            that `onmessage` sees everything.",
                "headers": sse_fields(None, false),
                "payload": schema("EventMessage"),
                "examples": of_devices.map(|example| self.example(example)).collect::<Vec<_>>(),
            }),
            (Form::Sse, _) => {
                let text = examples::sse_particle();
                let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
                let headers = json!({ "id": field("id: "), "event": field("event: ") });
                json!({
                    "name": name,
                    "title": "Event in Particle's form",
                    "summary": "What a device published, with `format=particle`: named as the event is \
                                named, with the upstream's own data.",
                    "contentType": "text/plain",
                    "headers": {
                        "type": "object",
                        "required": ["id", "event"],
                        "properties": { "id": schema("Position"), "event": { "type": "string" } },
                    },
                    "payload": { "type": "string", "description": "The data as it came." },
                    "examples": [
                        { "name": "event", "headers": headers, "payload": field("data: ") },
                    ],
                })
            }
        }
    }

    fn control(self, control: &Control, examples: &[Example]) -> Value {
        let all: Vec<Value> = examples
            .iter()
            .filter(|example| example.control == Some(control.name))
            .map(|example| self.example(example))
            .collect();
        let mut message = json!({
            "name": format!("fanlight.{}", control.name),
            "title": control.schema,
            "summary": control.meaning,
        });
        if self == Form::Sse {
            // A bye has no id where it is the whole answer.
            message["headers"] = sse_fields(Some(control.name), control.name == "bye");
            message["payload"] = schema(&format!("{}Data", control.schema));
        } else {
            message["payload"] = schema(control.schema);
        }
        message["examples"] = json!(all);
        message
    }

    fn example(self, example: &Example) -> Value {
        let mut shown = json!({ "name": example.name, "summary": example.summary });
        match self {
            Form::Json => shown["payload"] = example.object(),
            Form::Sse => {
                let mut headers = json!({ "id": example.sse_field("id") });
                if let Some(event) = example.sse_field("event") {
                    headers["event"] = json!(event);
                }
                if let Some(retry) = example.sse_field("retry") {
                    headers["retry"] = json!(retry.parse::<u64>().ok());
                }
                let data: Option<Value> =
                    example.sse_field("data").and_then(|data| serde_json::from_str(data).ok());
                shown["headers"] = headers;
                shown["payload"] = json!(data);
            }
        }
        shown
    }
}

/// The fields of an SSE event beside its data.
fn sse_fields(control: Option<&str>, id_may_be_missing: bool) -> Value {
    let mut properties = json!({ "id": schema("Position") });
    let mut required = Vec::from_iter((!id_may_be_missing).then_some("id"));
    if let Some(name) = control {
        required.push("event");
        properties["event"] = json!({ "const": format!("fanlight.{name}") });
        let retry = "When to come back if the connection breaks, in milliseconds.";
        properties["retry"] = json!({ "type": "integer", "minimum": 0, "description": retry });
    }
    json!({ "type": "object", "required": required, "properties": properties })
}
