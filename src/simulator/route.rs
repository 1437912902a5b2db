//! Which path means what, and which stream gets which event. Pure.
//!
//! Clients write the same address in many ways: an encoded or a raw prefix, a slash at the end, two
//! slashes in a row. The law here: slashes in a row are one, each part is percent-decoded once, and
//! a prefix is everything after `events/`, slashes included.

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// An event stream.
    Stream(Target),
    /// `POST /v1/…/events`; only the owner of `target` matters.
    Publish(Target),
    /// `GET /sim`.
    State,
    /// `GET /sim/devices`.
    Devices,
    /// `POST /sim/faults`.
    ArmFaults,
    /// `DELETE /sim/faults`.
    ClearFaults,
    /// Nothing here.
    Unknown,
}

/// Whose events, by the names used in the path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// The stream of public events, not of "my devices".
    pub(super) public: bool,
    pub(super) org: Option<String>,
    pub(super) product: Option<String>,
    pub(super) device: Option<String>,
    /// Empty for all.
    pub(super) prefix: String,
}

/// Who published an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The device with this index, or the cloud about it.
    Device(usize),
    /// The user, through the API.
    User,
    /// The product, or its organization, through the API.
    Product,
    /// Whoever controls the simulation: it goes to everybody.
    Everywhere,
}

/// Whose events a stream carries, once its target is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// The user's own devices and publishes. The stream of public events has the same here: nothing
    /// is public.
    User,
    /// One device.
    Device(usize),
    /// A product, or the organization: it has the one product.
    Product,
}

impl Audience {
    /// Whether it gets an event of this origin; `owner` tells of a device whether it is claimed and
    /// on the product.
    pub(super) fn hears(self, origin: Origin, owner: impl FnOnce(usize) -> Ownership) -> bool {
        match (self, origin) {
            (_, Origin::Everywhere) => true,
            (Audience::User, Origin::User) | (Audience::Product, Origin::Product) => true,
            (Audience::User, Origin::Device(index)) => owner(index).claimed,
            (Audience::Product, Origin::Device(index)) => owner(index).on_product,
            (Audience::Device(asked), Origin::Device(index)) => asked == index,
            (Audience::User, Origin::Product) | (Audience::Product, Origin::User) => false,
            (Audience::Device(_), Origin::User | Origin::Product) => false,
        }
    }
}

/// To whom a device belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ownership {
    /// By the user.
    pub(super) claimed: bool,
    /// A product's device.
    pub(super) on_product: bool,
}

/// What `method` on `path` asks for. The path is as sent, without its query.
pub(super) fn route(method: &http::Method, path: &str) -> Route {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["sim"]) => Route::State,
        ("GET", ["sim", "devices"]) => Route::Devices,
        ("POST", ["sim", "faults"]) => Route::ArmFaults,
        ("DELETE", ["sim", "faults"]) => Route::ClearFaults,
        ("GET", ["v1", rest @ ..]) => {
            target(rest, path.ends_with('/')).map_or(Route::Unknown, Route::Stream)
        }
        ("POST", ["v1", rest @ ..]) => match target(rest, false) {
            Some(target)
                if !target.public && target.device.is_none() && target.prefix.is_empty() =>
            {
                Route::Publish(target)
            }
            _ => Route::Unknown,
        },
        _ => Route::Unknown,
    }
}

fn target(parts: &[&str], slash_at_end: bool) -> Option<Target> {
    let named = |part: &&str| Some(decoded(part));
    let (target, tail) = match parts {
        ["events", tail @ ..] => (Target { public: true, ..Target::default() }, tail),
        // Before `devices/:id/events`, so that no device is called "events".
        ["devices", "events", tail @ ..] | ["devices", "mine", "events", tail @ ..] => {
            (Target::default(), tail)
        }
        ["devices", device, "events", tail @ ..] => {
            (Target { device: named(device), ..Target::default() }, tail)
        }
        ["products", product, "events", tail @ ..]
        | ["orgs", "products", product, "events", tail @ ..] => {
            (Target { product: named(product), ..Target::default() }, tail)
        }
        ["products", product, "devices", device, "events", tail @ ..] => {
            (Target { product: named(product), device: named(device), ..Target::default() }, tail)
        }
        ["orgs", org, "events", tail @ ..] => {
            (Target { org: named(org), ..Target::default() }, tail)
        }
        ["orgs", org, "devices", device, "events", tail @ ..] => {
            (Target { org: named(org), device: named(device), ..Target::default() }, tail)
        }
        ["orgs", org, "products", product, "events", tail @ ..] => {
            (Target { org: named(org), product: named(product), ..Target::default() }, tail)
        }
        ["orgs", org, "products", product, "devices", device, "events", tail @ ..] => {
            let [org, product, device] = [org, product, device].map(named);
            (Target { org, product, device, ..Target::default() }, tail)
        }
        _ => return None,
    };
    let mut prefix = decoded(&tail.join("/"));
    if slash_at_end && !tail.is_empty() {
        prefix.push('/');
    }
    Some(Target { prefix, ..target })
}

/// Percent-decoded once; what is no escape stays, what is no UTF-8 becomes the replacement
/// character.
fn decoded(text: &str) -> String {
    let hex = |byte: &u8| char::from(*byte).to_digit(16);
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        let digits = (bytes.get(index + 1).and_then(hex), bytes.get(index + 2).and_then(hex));
        match (byte, digits) {
            (b'%', (Some(high), Some(low))) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                index += 3;
            }
            (byte, _) => {
                decoded.push(*byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn stream(path: &str) -> Option<Target> {
        match route(&Method::GET, path) {
            Route::Stream(target) => Some(target),
            _ => None,
        }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn every_address_of_a_stream() {
        let mine = Target::default();
        for path in [
            "/v1/devices/events",
            "/v1/devices/events/",
            "//v1/devices//events",
            "/v1/devices/mine/events",
        ] {
            assert_eq!(stream(path), Some(mine.clone()), "{path}");
        }
        assert_eq!(
            stream("/v1/events/x"),
            Some(Target { public: true, prefix: "x".into(), ..mine.clone() })
        );
        assert_eq!(
            stream("/v1/devices/my%20van/events"),
            Some(Target { device: some("my van"), ..mine.clone() })
        );
        assert_eq!(
            stream("/v1/products/12/events"),
            Some(Target { product: some("12"), ..mine.clone() })
        );
        assert_eq!(
            stream("/v1/orgs/acme/events"),
            Some(Target { org: some("acme"), ..mine.clone() })
        );
        assert_eq!(
            stream("/v1/orgs/products/12/events"),
            Some(Target { product: some("12"), ..mine.clone() })
        );
        assert_eq!(
            stream("/v1/orgs/acme/products/12/devices/d/events"),
            Some(Target {
                org: some("acme"),
                product: some("12"),
                device: some("d"),
                ..mine.clone()
            })
        );
        assert_eq!(
            stream("/v1/products/12/devices/e00fce/events/x%2Fy"),
            Some(Target {
                product: some("12"),
                device: some("e00fce"),
                prefix: "x/y".into(),
                ..mine
            })
        );
        for path in ["/", "/v1", "/v1/devices", "/v1/devices/d", "/v2/devices/events", "/v1/user"] {
            assert_eq!(stream(path), None, "{path}");
        }
    }

    #[test]
    fn a_prefix_is_the_same_raw_or_encoded() {
        for (tail, prefix) in [
            ("greenhouse/bay-2", "greenhouse/bay-2"),
            ("greenhouse%2Fbay-2", "greenhouse/bay-2"),
            ("greenhouse%2f", "greenhouse/"),
            ("greenhouse/", "greenhouse/"),
            ("//greenhouse", "greenhouse"),
            ("a%252Fb", "a%2Fb"),
            ("100%", "100%"),
            ("%zz", "%zz"),
            ("%C3%BC", "ü"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(
                stream(&format!("/v1/devices/events/{tail}")).unwrap().prefix,
                prefix,
                "{tail}"
            );
        }
    }

    #[test]
    fn publishing_is_for_users_products_and_orgs() {
        let publish = |path| matches!(route(&Method::POST, path), Route::Publish(_));
        assert!(publish("/v1/devices/events") && publish("/v1/devices/events/"));
        assert!(publish("/v1/products/p/events") && publish("/v1/orgs/o/events"));
        assert!(
            !publish("/v1/events")
                && !publish("/v1/devices/d/events")
                && !publish("/v1/devices/events/name")
        );
        assert_eq!(route(&Method::PUT, "/v1/devices/events"), Route::Unknown);
    }

    #[test]
    fn who_hears_whom() {
        let owner = |index| Ownership { claimed: index != 1, on_product: index != 2 };
        let hears = |audience: Audience, origin| audience.hears(origin, owner);
        assert!(
            hears(Audience::User, Origin::Device(0)) && !hears(Audience::User, Origin::Device(1))
        );
        assert!(
            hears(Audience::Product, Origin::Device(1))
                && !hears(Audience::Product, Origin::Device(2))
        );
        assert!(
            hears(Audience::Device(1), Origin::Device(1))
                && !hears(Audience::Device(1), Origin::Device(0))
        );
        assert!(hears(Audience::User, Origin::User) && !hears(Audience::Product, Origin::User));
        assert!(
            hears(Audience::Product, Origin::Product) && !hears(Audience::User, Origin::Product)
        );
        assert!(hears(Audience::Device(7), Origin::Everywhere));
    }
}
