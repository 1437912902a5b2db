//! `/openapi.json` and `/asyncapi.json`: valid by the official schemas, and true. Every
//! route, parameter, bound, status and object that they describe is held against a broker.

mod documents;
mod traffic;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Stream, ask, broker, get, quiet_cloud, subscribers};

use documents::{Documents, operations};

/// The paths that the router answers, as its source names them.
pub(crate) fn routed() -> BTreeSet<String> {
    let source = std::fs::read_to_string("src/server/routes.rs").unwrap();
    let source = source.split("#[cfg(test)]").next().unwrap();
    for word in [".nest(", ".nest_service(", ".route_service(", ".fallback_service("] {
        assert!(!source.contains(word), "routes behind `{word}…)` cannot be seen by this test");
    }
    assert_eq!(source.matches(".route(").count(), 1, "all are routed by the table");
    let paths = source.split("Row::at(").skip(1).map(|rest| {
        let path = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
        path.expect("a route is named where it is added, so that this test sees it")
    });
    // The router writes `{*name}` for a name with slashes.
    paths.map(|path| path.replace("{*", "{")).collect()
}

#[tokio::test]
async fn every_route_is_described_and_every_description_has_a_route() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let documents = Documents::of(&broker).await;
    let paths = documents.openapi["paths"].as_object().unwrap();
    let (cloud_paths, own): (BTreeSet<String>, BTreeSet<String>) =
        paths.keys().cloned().partition(|path| path.starts_with("/v1/"));
    let described: BTreeSet<String> =
        own.iter().cloned().chain(["/v1/{path}".to_owned()]).collect();
    assert_eq!(described, routed());
    for path in own.iter().filter(|path| !path.contains('{')) {
        let is_read = paths[path].get("get").is_some();
        let method = if is_read { "HEAD" } else { "POST" };
        let answer = ask(broker.addr(), method, path, &[]).await;
        assert!(![404, 405].contains(&answer.status), "{path}: {answer:?}");
    }
    // Of those below `/v1`, which are behind one route, each is known by its methods.
    for path in &cloud_paths {
        let asked = path.replace(['{', '}'], "");
        let methods = paths[path].as_object().unwrap();
        for method in ["GET", "POST"] {
            let head = ask(broker.addr(), "HEAD", &asked, &[]).await;
            let is_stream = head.header("content-type") == Some("text/event-stream");
            let is_known = if method == "GET" && is_stream {
                true // It has no end to wait for.
            } else {
                let answer = ask(broker.addr(), method, &asked, &[]).await;
                answer.status != 405 && answer.json()["error"] != "not_found"
            };
            assert_eq!(is_known, methods.contains_key(&method.to_lowercase()), "{method} {path}");
        }
    }
    for channel in documents.asyncapi["channels"].as_object().unwrap().values() {
        assert!(described.contains(channel["address"].as_str().unwrap()), "{channel}");
    }
}

#[tokio::test]
async fn both_documents_are_valid() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let documents = Documents::of(&broker).await;
    let openapi = get(broker.addr(), "/openapi.json", &[]).await.json();
    documents::assert_official("openapi-3.1.json", &openapi);
    documents::assert_official("asyncapi-3.0.0.json", &documents.asyncapi);
    documents::assert_references(&openapi);
    documents::assert_references(&documents.asyncapi);
    assert_eq!(
        documents.openapi["components"]["schemas"], documents.asyncapi["components"]["schemas"],
        "one set of schemas"
    );
    let ids: Vec<&str> = documents::all_operations(&documents.openapi)
        .map(|(_, _, operation)| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

#[tokio::test]
async fn every_example_is_valid_by_its_schema() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let documents = Documents::of(&broker).await;
    let checked = documents.assert_examples();
    assert!(checked > 60, "only {checked} examples");
}

#[tokio::test]
async fn they_have_strong_validators() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    for path in ["/openapi.json", "/asyncapi.json"] {
        let answer = get(broker.addr(), path, &[]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        let tag = answer.header("etag").unwrap();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() == 18, "{tag}");
        for known in [tag.to_owned(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let answer = get(broker.addr(), path, &[("If-None-Match", &known)]).await;
            assert_eq!((answer.status, answer.body.as_str()), (304, ""), "{known}");
            assert_eq!(answer.header("etag"), Some(tag));
        }
        let answer = get(broker.addr(), path, &[("If-None-Match", "\"other\"")]).await;
        assert_eq!(answer.status, 200);
        let answer = ask(broker.addr(), "HEAD", path, &[]).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    }
}

/// The parameters of an operation that stand in its query.
fn query_parameters(operation: &Value) -> Vec<&Value> {
    let all = operation["parameters"].as_array().into_iter().flatten();
    all.filter(|parameter| parameter["in"] == "query").collect()
}

#[tokio::test]
async fn every_parameter_that_is_known_is_described_and_the_other_way_round() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let documents = Documents::of(&broker).await;
    let mut with_parameters = 0;
    // The cloud's own routes pass over what they do not know.
    let own = operations(&documents.openapi).filter(|(path, _)| !path.starts_with("/v1/"));
    for (path, operation) in own {
        let answer = get(broker.addr(), &format!("{path}?nonsense=1"), &[]).await;
        let described = query_parameters(operation);
        if answer.status != 400 {
            assert!(described.is_empty(), "{path} takes no parameters: {answer:?}");
            continue;
        }
        with_parameters += 1;
        let description = answer.json()["error_description"].as_str().unwrap().to_owned();
        let known = description.split_once("known here are ").unwrap().1;
        let known: BTreeSet<&str> = known.split(", ").collect();
        let is_spelling = |parameter: &&&Value| {
            parameter["description"].as_str().unwrap().starts_with("Another spelling of")
        };
        let names: BTreeSet<&str> = described
            .iter()
            .filter(|parameter| !is_spelling(parameter))
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, known, "{path}");
    }
    assert_eq!(with_parameters, 4);
}

#[tokio::test]
async fn the_bounds_that_are_described_are_the_real_ones() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--limits-header-bytes-max=64KiB"]).await;
    let documents = Documents::of(&broker).await;
    let mut checked = 0;
    for (path, operation) in operations(&documents.openapi) {
        for parameter in query_parameters(operation) {
            let name = parameter["name"].as_str().unwrap();
            let (good, bad) = documents::edges(&parameter["schema"]);
            assert!(!good.is_empty(), "{parameter}");
            let query = |values: &[String]| {
                let pairs: Vec<String> =
                    values.iter().map(|value| format!("{name}={value}")).collect();
                format!("{path}?{}", pairs.join("&"))
            };
            // The head alone: neither a stream nor a wait follows it.
            for values in &good {
                let answer = ask(broker.addr(), "HEAD", &query(values), &[]).await;
                assert_ne!(answer.status, 400, "{path} {name} {values:?}");
            }
            for values in &bad {
                let answer = get(broker.addr(), &query(values), &[]).await;
                assert_eq!(answer.status, 400, "{path} {name} {values:?}");
                let text = &answer.json()["error_description"];
                let named = text.as_str().unwrap().contains(&format!("`{name}`"));
                assert!(named, "{path} {name} {values:?}: {text}");
            }
            checked += good.len() + bad.len();
        }
    }
    assert!(checked > 100, "only {checked} values");
}

#[tokio::test]
async fn errors_are_answered_as_they_are_described() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--limits-connections-per-ip-max=2"]).await;
    let addr = broker.addr();
    let documents = Documents::of(&broker).await;
    let handshake = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Origin", "https://elsewhere.example"),
    ];
    let cases = [
        ("/events?limit=0", 400, "invalid_parameter"),
        ("/ws?format=message", 400, "invalid_parameter"),
        ("/poll?timeout=x", 400, "invalid_parameter"),
        ("/last?since=5m", 400, "invalid_parameter"),
        ("/ws", 426, "upgrade_required"),
    ];
    for (path, status, error) in cases {
        let answer = get(addr, path, &[]).await;
        assert_eq!(answer.status, status, "{path}");
        documents.assert_error(path, &answer, error);
    }
    let foreign = get(addr, "/ws", &handshake).await;
    assert_eq!(foreign.status, 403);
    documents.assert_error("/ws", &foreign, "foreign_origin");
    let nowhere = get(addr, "/nothing", &[]).await;
    documents.assert_valid("Error", &nowhere.json());
    let posted = ask(addr, "POST", "/events", &[]).await;
    documents.assert_valid("Error", &posted.json());

    let (first, _) = Stream::live(addr, "/events").await;
    let (_second, _) = Stream::live(addr, "/events").await;
    subscribers(&broker, 2).await;
    let all = operations(&documents.openapi);
    for (path, operation) in all.filter(|(path, _)| !path.contains('{')) {
        let answer = get(addr, path, &[]).await;
        match operation["responses"].get("429") {
            Some(_) => documents.assert_error(path, &answer, "too_many_connections"),
            None => assert_eq!(answer.status, 200, "{path}"),
        }
    }
    drop(first);
}

#[tokio::test]
async fn errors_of_the_particle_routes_are_answered_as_they_are_described() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--publish-enabled=true", "--publish-burst=1"]).await;
    let addr = broker.addr();
    let documents = Documents::of(&broker).await;
    let foreign = [("Origin", "null")];
    let long = format!("/v1/events/{}", "x".repeat(200));
    type Case<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 10] = [
        ("/v1/devices/events", "get", "/v1/devices/events", &foreign, "foreign_origin"),
        ("/v1/events/{prefix}", "get", "/v1/events", &[], "invalid_request"),
        ("/v1/events/{prefix}", "get", &long, &[], "invalid_parameter"),
        ("/v1/devices/{device}/events", "get", "/v1/devices/blue/events", &[], "Permission Denied"),
        ("/v1/products/{product}/events", "get", "/v1/products/1/events", &[], "Product not found"),
        ("/v1/orgs/{org}/events", "get", "/v1/orgs/1/events", &[], "Organization not found"),
        ("/v1/orgs/{org}/events", "post", "/v1/orgs/1/events", &[], "Organization not found"),
        ("/v1/devices/{device}/{function}", "post", "/v1/devices/d/f", &[], "publish_off"),
        ("/v1/devices/events", "post", "/v1/devices/events", &[], "invalid_request"),
        ("/v1/devices/events", "post", "/v1/devices/events", &[], "too_many_requests"),
    ];
    for (path, method, asked, headers, error) in cases {
        let answer = ask(addr, &method.to_uppercase(), asked, headers).await;
        documents.assert_error_of(path, method, &answer, error);
    }
}

#[tokio::test]
async fn the_table_in_the_protocol_page_has_the_same_errors() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let documents = Documents::of(&broker).await;
    let page = std::fs::read_to_string("docs/protocol.md").unwrap();
    let rows: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim);
            let (_, status, name) = (cells.next()?, cells.next()?, cells.next()?);
            let is_status = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
            is_status.then(|| name.trim_matches('`'))
        })
        .collect();
    let described = &documents.openapi["components"]["schemas"]["Error"]["properties"]["error"];
    let described: BTreeSet<&str> =
        described["enum"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(described, rows);
}
