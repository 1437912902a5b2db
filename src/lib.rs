//! Fanlight, a self-hosted fan-out broker for Particle devices.
