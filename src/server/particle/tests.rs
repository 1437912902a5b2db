use super::*;

const ID: &str = "e00fce68e8ec2200392752db";
const OTHER: &str = "e00fce68e8ec2200392752dc";

fn reads(scope: Scope) -> Source {
    Source::Particle { url: "http://127.0.0.1:1".into(), scope }
}

fn device(device: &str) -> Scope {
    Scope::Device { device: device.into() }
}

fn product(product: &str) -> Scope {
    Scope::Product { product: product.into() }
}

fn org(org: &str) -> Scope {
    Scope::Org { org: org.into() }
}

fn product_device(product: &str, device: &str) -> Scope {
    Scope::ProductDevice { product: product.into(), device: device.into() }
}

/// What a path gets: `all`, the device it is narrowed to, or the error.
fn asked(reads: &Source, path: &str) -> String {
    let Some(Address::Events { whose, prefix }) = Address::parse(path) else {
        panic!("{path} is no stream")
    };
    match filter(reads, &whose, prefix) {
        Ok(filter) => match filter.devices().next() {
            Some(device) => device.to_owned(),
            None => "all".to_owned(),
        },
        Err(error) => format!("{} {}", error.status().as_u16(), error.name()),
    }
}

const DENIED: &str = "403 Permission Denied";
const NO_PRODUCT: &str = "404 Product not found";
const NO_ORG: &str = "404 Organization not found";

#[test]
fn a_stream_is_the_one_asked_for_or_an_error_of_the_cloud() {
    // For each route: what it gets of `mine`, a device, a product, its device, an
    // organization, public events, and another event stream.
    let scopes = [
        reads(Scope::Mine),
        reads(device(ID)),
        reads(product("12")),
        reads(product_device("12", ID)),
        reads(org("acme")),
        reads(Scope::Public),
        Source::Sse { url: "http://127.0.0.1:1".into() },
    ];
    let rows: &[(&str, [&str; 7])] = &[
        ("/v1/devices/events", ["all", DENIED, DENIED, DENIED, DENIED, DENIED, "all"]),
        ("/v1/events/x", ["all", DENIED, DENIED, DENIED, DENIED, "all", "all"]),
        ("/v1/events", ["400 invalid_request"; 7]),
        (&format!("/v1/devices/{ID}/events"), [ID, "all", ID, "all", ID, ID, ID]),
        (
            &format!("/v1/devices/{OTHER}/events"),
            [OTHER, DENIED, OTHER, DENIED, OTHER, OTHER, OTHER],
        ),
        ("/v1/devices/blue/events", [DENIED, DENIED, DENIED, DENIED, DENIED, DENIED, "blue"]),
        (
            "/v1/products/12/events",
            [NO_PRODUCT, NO_PRODUCT, "all", DENIED, NO_PRODUCT, NO_PRODUCT, NO_PRODUCT],
        ),
        ("/v1/products/13/events", [NO_PRODUCT; 7]),
        (
            &format!("/v1/products/12/devices/{ID}/events"),
            [NO_PRODUCT, NO_PRODUCT, ID, "all", NO_PRODUCT, NO_PRODUCT, NO_PRODUCT],
        ),
        ("/v1/orgs/acme/events", [NO_ORG, NO_ORG, NO_ORG, NO_ORG, "all", NO_ORG, NO_ORG]),
        (
            &format!("/v1/orgs/acme/devices/{ID}/events"),
            [NO_ORG, NO_ORG, NO_ORG, NO_ORG, ID, NO_ORG, NO_ORG],
        ),
        (
            "/v1/orgs/acme/products/12/events",
            [NO_ORG, NO_ORG, NO_ORG, NO_ORG, NO_PRODUCT, NO_ORG, NO_ORG],
        ),
    ];
    for (path, expected) in rows {
        let got: Vec<String> = scopes.iter().map(|scope| asked(scope, path)).collect();
        assert_eq!(&got, expected, "{path}");
    }
}

#[test]
fn a_device_that_is_configured_by_its_name_is_known_by_it() {
    let blue = reads(device("blue"));
    assert_eq!(asked(&blue, "/v1/devices/blue/events"), "all");
    assert_eq!(asked(&blue, "/v1/devices/red/events"), DENIED);
    assert_eq!(asked(&blue, &format!("/v1/devices/{ID}/events")), ID);
    let mine = reads(Scope::Mine);
    assert_eq!(asked(&mine, &format!("/v1/devices/{}/events", ID.to_uppercase())), ID);
    let one = reads(device(ID));
    assert_eq!(asked(&one, &format!("/v1/devices/{}/events", ID.to_uppercase())), "all");
}

#[test]
fn errors_say_what_is_read_and_have_the_clouds_fields() {
    let Some(Address::Events { whose, .. }) = Address::parse("/v1/devices/events") else {
        panic!()
    };
    let error = filter(&reads(product("12")), &whose, String::new()).unwrap_err();
    let body: serde_json::Value = serde_json::from_str(&error.body()).unwrap();
    let text = body["error_description"].as_str().unwrap();
    assert!(text.contains("/v1/products/12/events"), "{text}");
    assert_eq!(body["info"], text);
    let Some(Address::Events { whose, .. }) = Address::parse("/v1/products/9/events") else {
        panic!()
    };
    let error = filter(&reads(Scope::Mine), &whose, String::new()).unwrap_err();
    let body: serde_json::Value = serde_json::from_str(&error.body()).unwrap();
    assert_eq!((&body["ok"], &body["error"]), (&false.into(), &"Product not found".into()));
}

#[test]
fn who_publishes() {
    let sent = |reads: &Source, path: &str| match Address::parse(path) {
        Some(Address::Events { whose, .. }) => match sender(reads, whose) {
            Ok(sender) => format!("/{}", sender.path().join("/")),
            Err(error) => error.name().to_owned(),
        },
        other => panic!("{other:?}"),
    };
    let (mine, product, org) = (reads(Scope::Mine), reads(product("12")), reads(org("acme")));
    for scope in [&mine, &product, &org] {
        assert_eq!(sent(scope, "/v1/devices/events"), "/v1/devices/events");
        assert_eq!(sent(scope, "/v1/devices/mine/events/"), "/v1/devices/events");
        for path in ["/v1/events", "/v1/devices/e00f/events", "/v1/products/12/devices/d/events"] {
            assert_eq!(sent(scope, path), "method_not_allowed", "{path}");
        }
    }
    assert_eq!(sent(&product, "/v1/products/12/events"), "/v1/products/12/events");
    assert_eq!(sent(&product, "/v1/products/13/events"), "Product not found");
    assert_eq!(sent(&mine, "/v1/products/12/events"), "Product not found");
    assert_eq!(sent(&org, "/v1/orgs/acme/events"), "/v1/orgs/acme/events");
    assert_eq!(sent(&mine, "/v1/orgs/acme/events"), "Organization not found");
    let other = Source::Sse { url: String::new() };
    assert_eq!(sent(&other, "/v1/devices/events"), "publish_off");
}

#[test]
fn functions_are_those_of_ones_own_devices() {
    let can = |scope: Scope| reaches(&reads(scope), ID).is_ok();
    assert!(can(Scope::Mine) && can(device(ID)));
    assert!(
        !can(device("blue")) && !can(product("12")) && !can(org("acme")) && !can(Scope::Public)
    );
}
