//! The two documents, and what it means to be valid by them.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};

use fanlight::server::Broker;

use crate::harness::{Answer, events_in, get};

/// Both documents of a broker.
pub(super) struct Documents {
    /// With its parameters looked up.
    pub(super) openapi: Value,
    pub(super) asyncapi: Value,
    /// Those made so far, by schema: each takes a while.
    validators: RefCell<HashMap<String, [Rc<Validator>; 2]>>,
}

impl Documents {
    pub(super) async fn of(broker: &Broker) -> Documents {
        let openapi = get(broker.addr(), "/openapi.json", &[]).await.json();
        let asyncapi = get(broker.addr(), "/asyncapi.json", &[]).await.json();
        let validators = RefCell::default();
        Documents { openapi: with_parameters_resolved(openapi), asyncapi, validators }
    }

    /// Fails unless `value` is what the schema of that name describes, and all of it is
    /// described.
    pub(super) fn assert_valid(&self, schema: &str, value: &Value) {
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        self.assert_valid_by(&schema, value);
    }

    fn assert_valid_by(&self, schema: &Value, value: &Value) {
        for validator in self.validators(schema) {
            let errors: Vec<String> = validator
                .iter_errors(value)
                .map(|error| format!("{} at `{}`", error, error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{schema}\n{value:#}\n{errors:#?}");
        }
    }

    /// True if the value is valid by the schema of that name.
    pub(super) fn is_valid(&self, schema: &str, value: &Value) -> bool {
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        self.validators(&schema).iter().all(|validator| validator.is_valid(value))
    }

    /// What OpenAPI means by a schema, and what AsyncAPI means by the same one.
    fn validators(&self, schema: &Value) -> [Rc<Validator>; 2] {
        let mut validators = self.validators.borrow_mut();
        let made = validators.entry(schema.to_string()).or_insert_with(|| {
            let mut components = self.openapi["components"]["schemas"].clone();
            close(&mut components);
            // Draft 7 knows nothing beside a reference.
            let whole = json!({ "allOf": [schema], "components": { "schemas": components } });
            [Draft::Draft202012, Draft::Draft7].map(|draft| {
                let options = jsonschema::options().with_draft(draft);
                Rc::new(options.should_validate_formats(true).build(&whole).unwrap())
            })
        });
        made.clone()
    }

    /// Fails unless an answer is the error of that name, as the path's operation has it.
    pub(super) fn assert_error(&self, path: &str, answer: &Answer, error: &str) {
        let path = path.split('?').next().unwrap();
        self.assert_error_of(path, "get", answer, error);
    }

    /// The same of another method; `path` as the document has it.
    pub(super) fn assert_error_of(&self, path: &str, method: &str, answer: &Answer, error: &str) {
        let responses = &self.openapi["paths"][path][method]["responses"];
        let response = &responses[answer.status.to_string()];
        let at = response["$ref"].as_str().unwrap_or_else(|| panic!("{path} {answer:?}"));
        let response = self.openapi.pointer(&at[1..]).unwrap();
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body = answer.json();
        self.assert_valid("Error", &body);
        assert_eq!(body["error"], error);
        let shown = &response["content"]["application/json"]["examples"];
        assert!(shown.get(error.replace(' ', "_")).is_some());
        let is_described = response["headers"].get("Retry-After").is_some();
        assert_eq!(answer.header("retry-after").is_some(), is_described, "{path}");
    }

    /// Holds each example against the schema beside it, and says how many there are.
    pub(super) fn assert_examples(&self) -> usize {
        let mut checked = 0;
        let mut check = |schema: &Value, value: &Value| {
            checked += 1;
            self.assert_valid_by(schema, value);
        };
        for (path, _, operation) in all_operations(&self.openapi) {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                if let Some(example) = parameter.get("example") {
                    check(&parameter["schema"], example);
                }
            }
            for response in operation["responses"].as_object().unwrap().values() {
                let response = match response["$ref"].as_str() {
                    Some(at) => self.openapi.pointer(&at[1..]).unwrap(),
                    None => response,
                };
                for (kind, content) in response["content"].as_object().into_iter().flatten() {
                    for example in content["examples"].as_object().into_iter().flatten() {
                        let (name, value) = (example.0, &example.1["value"]);
                        check(&content["schema"], value);
                        self.assert_stream_example(path, kind, name, value);
                    }
                }
            }
        }
        for (name, schema) in self.openapi["components"]["schemas"].as_object().unwrap() {
            for example in schema["examples"].as_array().into_iter().flatten() {
                assert!(self.is_valid(name, example), "{name}: {example}");
            }
        }
        for (name, message) in self.asyncapi["components"]["messages"].as_object().unwrap() {
            let examples = message["examples"].as_array().unwrap();
            assert!(!examples.is_empty(), "{name} has no example");
            for example in examples {
                check(&message["payload"], &example["payload"]);
                if let Some(headers) = message.get("headers") {
                    let mut headers = headers.clone();
                    close(&mut headers);
                    check(&headers, &example["headers"]);
                }
            }
        }
        checked
    }

    /// The objects within the text of a stream's example.
    fn assert_stream_example(&self, path: &str, kind: &str, name: &str, value: &Value) {
        match kind {
            "text/event-stream" => {
                let events = events_in(value.as_str().unwrap().as_bytes());
                assert!(!events.is_empty(), "{path} {name}");
                let is_cloud = name == "particle" || path.starts_with("/v1/");
                for event in events.iter().filter(|_| !is_cloud) {
                    self.assert_sse(&event.kind, &event.json());
                }
            }
            "application/x-ndjson" => {
                for line in value.as_str().unwrap().lines() {
                    self.assert_valid("StreamObject", &serde_json::from_str(line).unwrap());
                }
            }
            _ => {}
        }
    }

    /// Fails unless an SSE event's data is what its kind promises. Says which schema it was.
    pub(super) fn assert_sse(&self, kind: &str, data: &Value) -> String {
        let schema = match kind.strip_prefix("fanlight.") {
            Some(name) => format!("{}{}Data", name[..1].to_uppercase(), &name[1..]),
            None => "EventMessage".to_owned(),
        };
        self.assert_valid(&schema, data);
        let event = match kind {
            "message" => json!({ "data": data.to_string() }),
            kind => json!({ "event": kind, "data": data.to_string() }),
        };
        self.assert_valid("ServerSentEvent", &event);
        schema
    }

    /// Fails unless it is an object of a stream. Says which schema it was.
    pub(super) fn assert_object(&self, object: &Value) -> String {
        self.assert_valid("StreamObject", object);
        let schema = match object["fanlight"].as_str() {
            Some(name) => format!("{}{}", name[..1].to_uppercase(), &name[1..]),
            None => "Event".to_owned(),
        };
        self.assert_valid(&schema, object);
        schema
    }
}

/// Each operation that reads, with its path.
pub(super) fn operations(openapi: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let all = all_operations(openapi);
    all.filter(|(_, method, _)| *method == "get").map(|(path, _, operation)| (path, operation))
}

/// Each operation with its path and method.
pub(super) fn all_operations(openapi: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = openapi["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| {
        let item = item.as_object().unwrap().iter();
        item.map(move |(method, operation)| (path, method, operation))
    })
}

/// Fails unless a document is valid by its official schema.
pub(super) fn assert_official(schema: &str, document: &Value) {
    let path = format!("tests/data/schemas/{schema}");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(document)
        .map(|error| format!("{} at `{}`", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let mut broken = document.clone();
    broken["info"].as_object_mut().unwrap().remove("title");
    assert!(!validator.is_valid(&broken), "the official schema notices a mistake");
}

/// Fails unless every reference leads somewhere, and stands alone.
pub(super) fn assert_references(document: &Value) {
    let mut pending = vec![document];
    while let Some(value) = pending.pop() {
        match value {
            Value::Object(object) => {
                if let Some(at) = object.get("$ref").and_then(Value::as_str) {
                    let target = at.strip_prefix('#').and_then(|at| document.pointer(at));
                    assert!(target.is_some(), "{at} leads nowhere");
                    assert_eq!(object.len(), 1, "{object:?}");
                }
                pending.extend(object.values());
            }
            Value::Array(values) => pending.extend(values),
            _ => {}
        }
    }
}

/// Values right at the bounds of a parameter's schema, and right past them. Each is a list
/// of values given together.
pub(super) fn edges(schema: &Value) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let one = |text: &str| vec![text.to_owned()];
    let number = |name: &str| schema[name].as_u64();
    if schema["type"] == "array" {
        let item = &schema["items"];
        let bound =
            |from: &Value, name: &str| usize::try_from(from[name].as_u64().unwrap()).unwrap();
        let length = bound(item, "maxLength");
        good.push(one(&"x".repeat(length)));
        bad.push(one(&"x".repeat(length + 1)));
        let count = bound(schema, "maxItems");
        let many = |count: usize| (0..count).map(|number| number.to_string()).collect();
        good.push(many(count));
        bad.push(many(count + 1));
        match bound(item, "minLength") {
            0 => good.push(one("")),
            _ => bad.push(one("")),
        }
    } else if schema["type"] == "integer" {
        let min = number("minimum").unwrap();
        good.push(one(&min.to_string()));
        bad.push(one(&(i128::from(min) - 1).to_string()));
        let max = number("maximum").unwrap();
        good.push(one(&max.to_string()));
        bad.push(one(&(u128::from(max) + 1).to_string()));
        bad.extend([one("x"), one(""), one("1.5"), vec![min.to_string(), min.to_string()]]);
    } else if let Some(words) = schema["enum"].as_array() {
        for word in words {
            good.push(one(word.as_str().unwrap()));
        }
        let first = words[0].as_str().unwrap();
        bad.extend([one("nonsense"), one(""), vec![first.to_owned(), first.to_owned()]]);
    } else if schema.get("anyOf").is_some() {
        good.extend(["earliest", "1h30m", "0ms", "2026-11-22T01:02:03.004Z"].map(one));
        bad.extend([one("yesterday"), one(""), one("5"), one("5w")]);
        let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
        for (values, is_valid) in [(&good, true), (&bad, false)] {
            for value in values.iter().filter(|values| values.len() == 1) {
                assert_eq!(validator.is_valid(&json!(value[0])), is_valid, "{value:?}");
            }
        }
        bad.push(vec!["5m".to_owned(), "5m".to_owned()]);
    } else {
        assert_eq!(schema, &json!({ "type": "string" }), "a kind that this test does not know");
        good.extend([one(""), one("3xa9zhta-3"), one("nonsense"), one(&"x".repeat(500))]);
    }
    (good, bad)
}

/// Objects may have the fields that are described and no others, unless they say so.
fn close(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let is_open = object.contains_key("properties") && is_schema(object);
            if is_open && !object.contains_key("additionalProperties") {
                object.insert("additionalProperties".to_owned(), json!(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

fn is_schema(object: &Map<String, Value>) -> bool {
    object.get("type").is_some_and(|kind| kind == "object")
}

fn with_parameters_resolved(mut openapi: Value) -> Value {
    let components = openapi["components"]["parameters"].clone();
    let items = openapi["paths"].as_object_mut().unwrap().values_mut();
    for operation in items.flat_map(|item| item.as_object_mut().unwrap().values_mut()) {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            if let Some(at) = parameter["$ref"].as_str() {
                *parameter = components[at.rsplit('/').next().unwrap()].clone();
            }
        }
    }
    openapi
}
