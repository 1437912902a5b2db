//! Who may read, publish and look at the broker's own state.
//!
//! Law: pure. The time is an argument, and so is chance; files are read and written by
//! others. A grant is a filter: what a subscriber gets is what it asked for *and* may read,
//! worked out in one place ([`Principal::narrow`]), so that live events, replay, snapshots and
//! polls obey without knowing of it. A secret is shown nowhere and kept as its digest.
//!
//! ```text
//!  request head ─▶ Credential ─▶ Guard ─▶ Principal { grants, expiry, lease } ─▶ narrow(filter)
//!                   (where it     ├─ keys (KeyRing)
//!                    may stand)   └─ JSON Web Tokens (Tokens)
//! ```

mod credential;
mod grants;
mod guard;
mod json;
pub mod jwt;
pub mod key;
mod principal;

pub use credential::{Credential, Place};
pub use grants::{Denied, Grants, GrantsError, VALUES_MAX};
pub use guard::{Guard, Refused};
pub use jwt::{Claims, TokenKeys, TokenKeysError, Tokens};
pub use key::{Key, KeyRing, Keys, KeysError, Secret};
pub use principal::{Lease, Principal};
