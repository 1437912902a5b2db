//! What a credential allows.
//!
//! Law: what is not written is not granted, and what grants everything is written `true`.
//! The same form stands in the file of keys and in a token's claim:
//!
//! ```json
//! {"read":{"prefix":["greenhouse/"],"name":["door"],"device":[]},"publish":{"prefix":["cmd/"]},"admin":false}
//! ```

use serde_json::{Map, Value, json};

use crate::model::{Filter, filter::FilterError};

/// Values of all the lists of one grant together.
pub const VALUES_MAX: usize = 64;

/// What a credential allows; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Events that may be read; none if there is nothing to read.
    pub read: Option<Filter>,
    /// Names that may be published, as a filter without devices; none for none.
    pub publish: Option<Filter>,
    /// May look at `/status` and `/metrics`, and call functions of devices.
    pub admin: bool,
}

/// Grants cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantsError {
    /// A part has another form.
    #[error("{0}")]
    Shape(&'static str),
    /// A part that nobody knows; it may have been meant to forbid something.
    #[error(
        "unknown part of a grant; known are read, publish, admin, and in them prefix, name, device"
    )]
    Unknown,
    /// More values than [`VALUES_MAX`].
    #[error("{0} values in one grant, at most {VALUES_MAX} are allowed")]
    Count(usize),
    /// A list is out of bounds.
    #[error("{0}")]
    Filter(#[from] FilterError),
}

/// Something is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No right to read at all.
    #[error(
        "this credential may not read events; one made with `fanlight token new NAME --read` may"
    )]
    Read,
    /// A right to read, but nothing of what is asked for.
    #[error(
        "this credential may read events, but none of those that are asked for: leave the filter out to \
         get what it may read, and see `filter` in fanlight.hello"
    )]
    ReadThis,
    /// No right to publish this name.
    #[error("this credential may not publish an event of that name")]
    Publish,
    /// No right to what only admins may.
    #[error("this credential may not do this; one made with `fanlight token new NAME --admin` may")]
    Admin,
}

impl Grants {
    /// Everything there is.
    pub fn all() -> Grants {
        Grants { read: Some(Filter::all()), publish: Some(Filter::all()), admin: true }
    }

    /// Reads them from JSON.
    ///
    /// # Errors
    /// For anything but the form above, and for a `read` or `publish` without values: whether
    /// that means all or nothing is not for the reader to guess.
    pub fn from_json(value: &Value) -> Result<Grants, GrantsError> {
        const SHAPE: GrantsError =
            GrantsError::Shape("grants are an object with read, publish and admin");
        let Value::Object(parts) = value else { return Err(SHAPE) };
        let mut grants = Grants::default();
        let mut count = 0;
        for (part, value) in parts {
            match (part.as_str(), value) {
                ("read" | "publish" | "admin", Value::Null | Value::Bool(false)) => {}
                ("read", Value::Bool(true)) => grants.read = Some(Filter::all()),
                ("publish", Value::Bool(true)) => grants.publish = Some(Filter::all()),
                ("admin", Value::Bool(true)) => grants.admin = true,
                ("read", Value::Object(lists)) => {
                    grants.read = Some(filter(lists, &["prefix", "name", "device"], &mut count)?);
                }
                ("publish", Value::Object(lists)) => {
                    grants.publish = Some(filter(lists, &["prefix"], &mut count)?);
                }
                ("read" | "publish", _) => {
                    return Err(GrantsError::Shape(
                        "read and publish are true, or an object of lists",
                    ));
                }
                ("admin", _) => return Err(GrantsError::Shape("admin is true or false")),
                _ => return Err(GrantsError::Unknown),
            }
        }
        Ok(grants)
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Value {
        let list = |values: Vec<&str>| json!(values);
        let whole = |filter: &Filter| *filter == Filter::all();
        let read = match &self.read {
            None => json!(false),
            Some(filter) if whole(filter) => json!(true),
            Some(filter) => json!({
                "prefix": list(filter.prefixes().collect()),
                "name": list(filter.names().collect()),
                "device": list(filter.devices().collect()),
            }),
        };
        let publish = match &self.publish {
            None => json!(false),
            Some(filter) if whole(filter) => json!(true),
            Some(filter) => json!({ "prefix": list(filter.prefixes().collect()) }),
        };
        json!({ "read": read, "publish": publish, "admin": self.admin })
    }
}

fn filter(
    lists: &Map<String, Value>,
    known: &[&str],
    count: &mut usize,
) -> Result<Filter, GrantsError> {
    let mut values: [Vec<String>; 3] = Default::default();
    for (name, list) in lists {
        let Some(index) = known.iter().position(|known| known == name) else {
            return Err(GrantsError::Unknown);
        };
        let Value::Array(list) = list else {
            return Err(GrantsError::Shape("prefix, name and device are lists of texts"));
        };
        *count += list.len();
        if *count > VALUES_MAX {
            return Err(GrantsError::Count(*count));
        }
        for value in list {
            match value {
                Value::String(value) if value.is_empty() => {
                    return Err(GrantsError::Shape("an empty value: write true for everything"));
                }
                Value::String(value) => values[index].push(value.clone()),
                _ => return Err(GrantsError::Shape("prefix, name and device are lists of texts")),
            }
        }
    }
    let [prefixes, names, devices] = values;
    if prefixes.is_empty() && names.is_empty() && devices.is_empty() {
        return Err(GrantsError::Shape(
            "a grant without values: write true for everything, false for nothing",
        ));
    }
    Ok(Filter::new(prefixes, names, devices)?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::filter::tests::{any_filter, filter};
    use proptest::prelude::*;

    pub(in super::super) fn any_grants() -> impl Strategy<Value = Grants> {
        let prefixes = any_filter().prop_map(|filter| {
            let prefixes = filter.prefixes().map(str::to_owned).collect();
            Filter::new(prefixes, vec![], vec![]).unwrap()
        });
        (proptest::option::of(any_filter()), proptest::option::of(prefixes), any::<bool>())
            .prop_map(|(read, publish, admin)| Grants { read, publish, admin })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(grants in any_grants()) {
            prop_assert_eq!(Grants::from_json(&grants.to_json()), Ok(grants));
        }
    }

    #[test]
    fn what_is_not_written_is_not_granted() {
        let read = |text: &str| Grants::from_json(&serde_json::from_str(text).unwrap());
        assert_eq!(read("{}"), Ok(Grants::default()));
        assert_eq!(read(r#"{"read":null,"publish":false,"admin":false}"#), Ok(Grants::default()));
        assert_eq!(read(r#"{"read":true,"publish":true,"admin":true}"#), Ok(Grants::all()));
        let bay = Grants { read: Some(filter(&["a/"], &[], &["d"])), ..Grants::default() };
        assert_eq!(read(r#"{"read":{"prefix":["a/"],"name":[],"device":["d"]}}"#), Ok(bay));
    }

    #[test]
    fn what_is_doubtful_is_refused() {
        let many = format!(r#"{{"read":{{"prefix":{}}},"publish":{{"prefix":["p"]}}}}"#, {
            let values: Vec<String> = (0..64).map(|n| format!("{n:02}/")).collect();
            json!(values)
        });
        for text in [
            "[]",
            "true",
            r#"{"read":{}}"#,
            r#"{"read":{"prefix":[],"name":[],"device":[]}}"#,
            r#"{"read":{"prefix":[""]}}"#,
            r#"{"read":"true"}"#,
            r#"{"read":1}"#,
            r#"{"read":["a/"]}"#,
            r#"{"read":{"prefix":"a/"}}"#,
            r#"{"read":{"prefix":[1]}}"#,
            r#"{"read":{"prefixes":["a/"]}}"#,
            r#"{"publish":{"name":["a"]}}"#,
            r#"{"admin":1}"#,
            r#"{"admin":"true"}"#,
            r#"{"write":true}"#,
            many.as_str(),
        ] {
            let value = serde_json::from_str(text).unwrap();
            assert!(Grants::from_json(&value).is_err(), "{text}");
        }
    }
}
