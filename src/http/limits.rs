//! The bounds of requests, as plain values. `config/limits.rs` has their defaults and reasons.

use std::time::Duration;

/// Bounds on what clients may send and how long they may take.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Size of one upload.
    pub body_bytes_max: u64,
    /// Images in one request.
    pub request_images_max: usize,
    /// From the head to the end of the body.
    pub body_timeout: Duration,
    /// From the end of the body to the answer.
    pub request_timeout: Duration,
}
