//! The bounds of the edge, as plain values. `config/limits.rs` has their defaults and reasons.

use std::time::Duration;

/// Bounds on what clients may send and how long they may take.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Size of one upload.
    pub body_bytes_max: u64,
    /// Size of all uploads in memory.
    pub upload_memory_max: u64,
    /// Size of a request's head.
    pub header_bytes_max: usize,
    /// Images in one request.
    pub request_images_max: usize,
    /// Open connections.
    pub connections_max: usize,
    /// From the last answer to the end of the next head.
    pub header_timeout: Duration,
    /// From the head to the end of the body.
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// From the end of the body to the answer.
    pub request_timeout: Duration,
}
