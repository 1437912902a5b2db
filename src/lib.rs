//! Fanlight, a self-hosted fan-out broker for Particle devices.

pub mod model;
pub mod clock;
pub mod telemetry;
pub mod log;
pub mod hub;
pub mod transport;
pub mod delivery;
pub mod config;
