//! The gate: who asks, and whether the route lets it in.
//!
//! Law: what each route asks for stands in its row of the router's table, and nothing is routed
//! without a row. When keys change, what is served under those that are gone ends: the lease
//! first, then everyone is woken to look at it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    extract::{Request as HttpRequest, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use http::HeaderMap;
use url::Url;

use crate::{
    access::{
        Claims, Denied, Guard, Keys, Place, Principal, Refused, TokenKeys, jwt::KEYS_BYTES_MAX,
        key::FILE_BYTES_MAX,
    },
    telemetry::{AccessOutcome, Telemetry},
};

use super::{App, error::Error, key_set::KeySet, keys_file, shutdown::Shutdown};

/// How often the files of keys are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Who may come in.
#[derive(Debug, Default)]
pub struct Config {
    /// The keys at the start; none where access is off.
    pub keys: Option<Keys>,
    /// The file they are from, to be looked at for changes.
    pub keys_file: Option<PathBuf>,
    /// Tokens of others that are good here; none for none.
    pub tokens: Option<TokensConfig>,
}

/// Which tokens of others are good.
#[derive(Debug)]
pub struct TokensConfig {
    /// Where the keys are to check them with.
    pub source: TokenKeysSource,
    /// Those that are known at the start.
    pub keys: TokenKeys,
    /// What they must say.
    pub claims: Claims,
}

/// Where the keys are that tokens are checked with.
#[derive(Clone, Debug)]
pub enum TokenKeysSource {
    /// In a file, to be looked at for changes.
    File(PathBuf),
    /// At an address, to be asked again and again.
    Url(Url),
}

/// What a route asks of those who come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it says nothing that is not public.
    Nothing,
    /// A right to read events.
    Read,
    /// The right to look at the broker's state.
    Admin,
    /// It depends on method and path: the route asks by itself.
    Within,
    /// A secret of its own, which the route asks for by itself.
    Secret,
}

/// Where a running broker asks who comes.
#[derive(Debug)]
pub(super) struct Gate {
    guard: RwLock<Guard>,
    telemetry: Arc<Telemetry>,
}

impl Gate {
    pub(super) fn new(
        keys: Option<Keys>,
        tokens: Option<(Claims, TokenKeys)>,
        telemetry: Arc<Telemetry>,
    ) -> Gate {
        let guard = keys.map_or_else(Guard::open, |keys| Guard::closed(keys, tokens));
        Gate { guard: RwLock::new(guard), telemetry }
    }

    /// Who asks.
    ///
    /// # Errors
    /// If that is not known.
    pub(super) fn ask(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        place: Place,
        wall_ms: u64,
    ) -> Result<Arc<Principal>, Error> {
        let guard = self.guard.read().unwrap_or_else(PoisonError::into_inner);
        let asked = guard.authenticate(headers, query, place, wall_ms);
        if guard.is_on() {
            self.telemetry.access(match &asked {
                Ok(_) => AccessOutcome::Accepted,
                Err(Refused::Missing) => AccessOutcome::Missing,
                Err(_) => AccessOutcome::Refused,
            });
        }
        asked.map_err(Error::Refused)
    }

    /// The answer to one who may not, counted.
    pub(super) fn deny(&self, denied: Denied) -> Error {
        self.telemetry.access(AccessOutcome::Denied);
        Error::Denied(denied)
    }

    /// What `/status` shows.
    pub(super) fn status(&self, wall_ms: u64) -> Status {
        let guard = self.guard.read().unwrap_or_else(PoisonError::into_inner);
        Status { is_on: guard.is_on(), keys: guard.keys(wall_ms), token_keys: guard.token_keys() }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Guard) -> T) -> T {
        change(&mut self.guard.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is shown of the gate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    /// True if it asks who comes.
    pub(super) is_on: bool,
    /// API keys that are good.
    pub(super) keys: usize,
    /// Keys that tokens are checked with.
    pub(super) token_keys: usize,
}

/// Puts the gate before a route.
pub(super) fn guarded(app: &App, need: Need, methods: MethodRouter<App>) -> MethodRouter<App> {
    let may: May = match need {
        // Not even looked at: a handler that wants to know who asks would fail.
        Need::Nothing | Need::Within | Need::Secret => return methods,
        Need::Read => Principal::may_read,
        Need::Admin => Principal::may_administer,
    };
    methods.layer(middleware::from_fn_with_state((app.clone(), may), pass))
}

/// What a principal has to be allowed.
type May = fn(&Principal) -> Result<(), Denied>;

/// Lets a request through to its route, with who asks among its extensions.
async fn pass(
    State((app, may)): State<(App, May)>,
    mut request: HttpRequest,
    next: Next,
) -> Response {
    let (headers, query) = (request.headers(), request.uri().query());
    let asked = app.gate.ask(headers, query, Place::Header, app.clock.now().wall_ms);
    let let_in = asked.and_then(|principal| match may(&principal) {
        Ok(()) => Ok(principal),
        Err(denied) => Err(app.gate.deny(denied)),
    });
    match let_in {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Takes keys that have come, and ends what is served under those that are gone.
fn renew(app: &App, what: &'static str, count: usize, change: impl FnOnce(&mut Guard) -> bool) {
    let has_ended = app.gate.change(change);
    tracing::info!(what, count, has_ended, "keys were read");
    if has_ended {
        // Those who sleep look at their lease; it has ended before this.
        app.hub.wake_all();
    }
}

/// Takes the keys of a text.
fn take(app: &App, kind: Kind, path: &Path, text: &[u8]) -> Result<(), String> {
    let wrong = |error: keys_file::KeysFileError| error.to_string();
    match kind {
        Kind::Api => {
            let keys = keys_file::parse(path, text).map_err(wrong)?;
            renew(app, "API keys", keys.iter().count(), |guard| guard.renew(keys));
        }
        Kind::Token => {
            let keys = keys_file::parse_token_keys(path, text).map_err(wrong)?;
            renew(app, "keys for tokens", keys.count(), |guard| guard.renew_tokens(keys));
        }
    }
    Ok(())
}

/// What a file of keys is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Keys of this broker.
    Api,
    /// Keys to check tokens with.
    Token,
}

/// Looks at a file of keys until the broker ends.
pub(super) async fn watch(app: App, kind: Kind, path: PathBuf, shutdown: Shutdown) {
    let bytes_max = match kind {
        Kind::Api => FILE_BYTES_MAX,
        Kind::Token => KEYS_BYTES_MAX,
    };
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    // Each state of the file is told once.
    let (mut seen, mut told): (Option<Vec<u8>>, Option<String>) = (None, None);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = shutdown.finishing() => return,
        }
        let looked = path.clone();
        let read = move || keys_file::read_text(&looked, bytes_max);
        let Ok(read) = tokio::task::spawn_blocking(read).await else { continue };
        let fault = match read {
            Ok(Some(text)) if seen.as_ref() == Some(&text) => None,
            Ok(Some(text)) => {
                let fault = take(&app, kind, &path, &text).err();
                if fault.is_none() {
                    seen = Some(text);
                }
                fault
            }
            Ok(None) => Some(format!("there is no file {}", path.display())),
            Err(error) => Some(error.to_string()),
        };
        // A file that is away or half written revokes nobody.
        if let Some(fault) = fault.as_ref().filter(|fault| told.as_ref() != Some(*fault)) {
            tracing::error!(fault, "keys cannot be read: they stay as they were");
        }
        told = fault;
    }
}

/// Asks for the keys to check tokens with until the broker ends. No request waits for it.
pub(super) async fn ask_again(app: App, key_set: KeySet, shutdown: Shutdown) {
    loop {
        let asked = tokio::select! {
            asked = key_set.ask() => asked,
            () = shutdown.finishing() => return,
        };
        let wait = match asked {
            Ok(keys) => {
                renew(&app, "keys for tokens", keys.count(), |guard| guard.renew_tokens(keys));
                KeySet::INTERVAL
            }
            Err(error) => {
                tracing::error!(error, "keys for tokens did not come: they stay as they were");
                KeySet::RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.finishing() => return,
        }
    }
}
