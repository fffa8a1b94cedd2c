//! The bounds of calls, as plain values. `config/limits.rs` has their defaults and reasons.

use std::time::Duration;

/// Bounds on what clients may send and how long they may take.
#[derive(Debug, Clone, Copy)]
pub struct GrpcLimits {
    /// Size of one message, unpacked.
    pub message_bytes_max: u64,
    /// Open calls of each kind, of all connections.
    pub calls_max: usize,
    /// Requests of one stream that are answered beside each other.
    pub stream_requests_max: usize,
    /// How long a stream may be silent between its messages.
    pub stream_timeout: Duration,
    /// From the head of a call, or the first byte of a message of a stream, to the message's last byte.
    pub body_timeout: Duration,
}
