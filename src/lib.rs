//! Fanlight, a self-hosted fan-out broker for Particle devices.

pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod hub;
pub mod log;
pub mod model;
pub mod server;
pub mod simulator;
pub mod telemetry;
pub mod transport;
pub mod upstream;
