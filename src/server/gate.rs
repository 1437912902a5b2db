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

use crate::{
    access::{Denied, Guard, Keys, Place, Principal, Refused},
    telemetry::{AccessOutcome, Telemetry},
};

use super::{App, error::Error, keys_file, shutdown::Shutdown};

/// How often the file of keys is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Who may come in.
#[derive(Debug, Default)]
pub struct Config {
    /// The keys at the start; none where access is off.
    pub keys: Option<Keys>,
    /// The file they are from, to be looked at for changes.
    pub keys_file: Option<PathBuf>,
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
}

/// Where a running broker asks who comes.
#[derive(Debug)]
pub(super) struct Gate {
    guard: RwLock<Guard>,
    telemetry: Arc<Telemetry>,
}

impl Gate {
    pub(super) fn new(keys: Option<Keys>, telemetry: Arc<Telemetry>) -> Gate {
        let guard = keys.map_or_else(Guard::open, Guard::with_keys);
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

    /// True if it asks who comes, and how many keys are good.
    pub(super) fn status(&self, wall_ms: u64) -> (bool, usize) {
        let guard = self.guard.read().unwrap_or_else(PoisonError::into_inner);
        (guard.is_on(), guard.keys(wall_ms))
    }

    /// Takes other keys; true if something that is served may have to end.
    fn renew(&self, keys: Keys) -> bool {
        self.guard.write().unwrap_or_else(PoisonError::into_inner).renew(keys)
    }
}

/// Puts the gate before a route.
pub(super) fn guarded(app: &App, need: Need, methods: MethodRouter<App>) -> MethodRouter<App> {
    let may: May = match need {
        // Not even looked at: a handler that wants to know who asks would fail.
        Need::Nothing | Need::Within => return methods,
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

/// Looks at the file of keys until the broker ends.
pub(super) async fn watch(app: App, path: PathBuf, shutdown: Shutdown) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    let mut seen = Seen::default();
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = shutdown.finishing() => return,
        }
        let looked = path.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || keys_file::read_text(&looked)).await
        else {
            continue;
        };
        let text = match read {
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err("there is no such file".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        seen.look(&app, &path, text);
    }
}

/// What was last seen of the file, so that each state of it is told once.
#[derive(Debug, Default)]
struct Seen {
    text: Option<Vec<u8>>,
    fault: Option<String>,
}

impl Seen {
    fn look(&mut self, app: &App, path: &Path, text: Result<Vec<u8>, String>) {
        let keys = match text {
            Ok(text) if self.text.as_ref() == Some(&text) => return self.fault = None,
            Ok(text) => keys_file::parse(path, &text)
                .map(|keys| (keys, text))
                .map_err(|error| error.to_string()),
            Err(fault) => Err(fault),
        };
        match keys {
            Ok((keys, text)) => {
                let is_first = self.text.is_none();
                let count = keys.iter().count();
                (self.text, self.fault) = (Some(text), None);
                let has_ended = app.gate.renew(keys);
                if !is_first || has_ended {
                    tracing::info!(keys = count, "the file of keys was read again");
                }
                if has_ended {
                    // Those who sleep look at their lease; it has ended before this.
                    app.hub.wake_all();
                }
            }
            // A file that is away for a moment revokes nobody, nor does one that was not yet
            // there.
            Err(fault) if self.fault.as_ref() != Some(&fault) => {
                tracing::error!(
                    path = %path.display(), fault,
                    "the file of keys cannot be read: the keys stay as they were; `fanlight token revoke` \
                     ends one"
                );
                self.fault = Some(fault);
            }
            Err(_) => {}
        }
    }
}
