//! What stands in front of the broker, and what it says of who comes through it.
//!
//! Law: no I/O and no clock; text and bytes in, addresses out. Whoever connects is who the kernel
//! says, and only where that is a proxy the operator trusts does its word count for more. What
//! cannot be read changes nothing. Each file stands alone, so that fuzzing can take it by itself.
//!
//! ```text
//!  bytes of a connection ──▶ proxy_protocol   who is behind it, said before anything else
//!  headers of a request ───▶ forwarded        who is behind it, said with each request
//!                            network          whose word is believed
//! ```

pub mod forwarded;
pub mod network;
pub mod proxy_protocol;
