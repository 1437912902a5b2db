//! A secret that came with a request, and where it may stand.
//!
//! Law: in the `Authorization` header. In the query it would lie in every log and history on
//! its way, so it is taken from there only on the routes of the Particle cloud, whose clients
//! do nothing else; everywhere else it is refused, so that nobody gets used to it.

use http::{HeaderMap, header};
use url::form_urlencoded;

use super::{Refused, Secret};

/// Longest credential, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 8 << 10;

/// The parameter of a query in which Particle's clients send it.
const PARAMETER: &str = "access_token";

/// Where a credential may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the header alone.
    Header,
    /// In the header, or in the query as `access_token`.
    HeaderOrQuery,
}

/// What a request came with. Its text is shown nowhere.
#[derive(Clone, Debug)]
pub struct Credential(Secret);

impl Credential {
    /// The credential in the head of a request; none if it has none. Of a header and a query
    /// the header counts.
    ///
    /// # Errors
    /// If there is one that cannot be taken from where it stands.
    pub fn find(
        headers: &HeaderMap,
        query: Option<&str>,
        place: Place,
    ) -> Result<Option<Credential>, Refused> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        if let Some(value) = values.next() {
            if values.next().is_some() {
                return Err(Refused::Twice);
            }
            let text = value.to_str().map_err(|_| Refused::Invalid)?;
            let (scheme, text) = text.split_once(' ').ok_or(Refused::Scheme)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(Refused::Scheme);
            }
            return Credential::new(text.trim()).map(Some);
        }
        let mut given = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .filter(|(name, _)| name == PARAMETER);
        match (given.next(), place) {
            (None, _) => Ok(None),
            (Some(_), Place::Header) => Err(Refused::Query),
            (Some(_), Place::HeaderOrQuery) if given.next().is_some() => Err(Refused::Twice),
            (Some((_, text)), Place::HeaderOrQuery) => Credential::new(&text).map(Some),
        }
    }

    fn new(text: &str) -> Result<Credential, Refused> {
        let is_one = !text.is_empty()
            && text.len() <= CREDENTIAL_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_one { Ok(Credential(Secret::new(text))) } else { Err(Refused::Invalid) }
    }

    /// The secret itself.
    pub(super) fn secret(&self) -> &Secret {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn found(
        values: &[&'static str],
        query: &str,
        place: Place,
    ) -> Result<Option<String>, Refused> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        let found = Credential::find(&headers, Some(query), place)?;
        Ok(found.map(|credential| credential.secret().expose().to_owned()))
    }

    #[test]
    fn it_stands_in_the_header_and_for_clients_of_the_cloud_in_the_query() {
        let text = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(found(&["Bearer abc"], "", Place::Header), text("abc"));
        assert_eq!(found(&["bearer  abc "], "", Place::Header), text("abc"));
        assert_eq!(found(&[], "x=1", Place::HeaderOrQuery), Ok(None));
        assert_eq!(found(&[], "x=1&access_token=a%2Fb", Place::HeaderOrQuery), text("a/b"));
        assert_eq!(found(&[], "access_token=abc", Place::Header), Err(Refused::Query));
        assert_eq!(found(&["Bearer abc"], "access_token=d", Place::HeaderOrQuery), text("abc"));
    }

    #[test]
    fn what_is_doubtful_is_refused() {
        for (values, error) in [
            (&["Bearer a", "Bearer a"][..], Refused::Twice),
            (&["Basic abc"], Refused::Scheme),
            (&["abc"], Refused::Scheme),
            (&["Bearer "], Refused::Invalid),
            (&["Bearer a b"], Refused::Invalid),
        ] {
            assert_eq!(found(values, "", Place::HeaderOrQuery), Err(error), "{values:?}");
        }
        let twice = "access_token=a&access_token=a";
        assert_eq!(found(&[], twice, Place::HeaderOrQuery), Err(Refused::Twice));
        assert_eq!(found(&[], "access_token=", Place::HeaderOrQuery), Err(Refused::Invalid));
        let long = format!("access_token={}", "x".repeat(CREDENTIAL_BYTES_MAX + 1));
        assert_eq!(found(&[], &long, Place::HeaderOrQuery), Err(Refused::Invalid));
    }

    #[test]
    fn nothing_shows_it() {
        let credential = Credential::new("hunter2").unwrap();
        assert!(!format!("{credential:?}").contains("hunter2"));
    }
}
