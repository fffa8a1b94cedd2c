//! The bounds of connections, as plain values. `config/limits.rs` has their defaults and reasons.

use std::time::Duration;

/// Bounds on how many clients may be connected and how long they may take. The same for every port.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Open connections of one port.
    pub connections_max: usize,
    /// Size of a request's head.
    pub header_bytes_max: usize,
    /// From the opening of a connection to the end of its TLS handshake.
    pub handshake_timeout: Duration,
    /// From the last answer to the end of the next head.
    pub header_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
}
