//! What an event runs through from the first byte to the write, and no more: the broker's own
//! files, compiled once more. docs/ARCHITECTURE.md's table of who may name whom is why they
//! can stand alone.

#[path = "../../src/access/mod.rs"]
pub mod access;
#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/hub/mod.rs"]
pub mod hub;
#[path = "../../src/log/mod.rs"]
pub mod log;
#[path = "../../src/model/mod.rs"]
pub mod model;
#[path = "../../src/telemetry.rs"]
pub mod telemetry;
#[path = "../../src/transport/mod.rs"]
pub mod transport;

/// Of the upstream only the decoder.
#[path = "../../src/upstream"]
pub mod upstream {
    pub mod decode;
}
