//! A request's body, read whole: bounded in size and time.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use tokio::time::timeout;

use crate::upstream::publish::BODY_BYTES_MAX;

use super::error::Error;

/// For a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads it.
///
/// # Errors
/// If it is longer than [`BODY_BYTES_MAX`], or did not come in time.
pub(super) async fn read(body: Body) -> Result<Bytes, Error> {
    match timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if is_too_long(&error) => Err(Error::TooLarge { bytes_max: BODY_BYTES_MAX }),
        // It broke off: whoever reads the answer, it is not the client.
        Ok(Err(_)) | Err(_) => Err(Error::BodyMissing { secs: BODY_TIMEOUT.as_secs() }),
    }
}

/// True for a body over the bound, as against one that broke off.
fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        cause = error.source();
    }
    false
}
