//! Where clients connect, whatever they speak: connections, in the open or under TLS, the memory of what they send, what the log and the metrics
//! say of every request. It knows no routes.

mod calls;
mod closing;
mod guests;
mod hardening;
mod http1;
mod http2;
mod limits;
mod listener;
mod memory;
mod peer;
mod places;
mod requests;
mod reread;
mod stream;
mod tls;

pub use http1::Http1;
pub use http2::{Http2, Http2Limits};
pub use limits::ConnectionLimits;
pub use listener::{Drained, Entrance, Wire, serve};
pub use memory::{UploadMemory, UploadShare, UploadsFull};
pub use peer::{Networks, Peer};
pub use places::ClientConnections;
pub(crate) use requests::{OverloadLog, REQUEST_ID, request_id};
pub use reread::{Looked, Reread, SmallFile};
pub use stream::Stream;
pub use tls::{Alpn, Terms, Tls, TlsError, TlsFiles};

use crate::shutdown::Phases;
use crate::telemetry::{Metrics, RequestLog, Tracer};

/// What the wires of one server share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The memory of what clients send.
    pub uploads: UploadMemory,
    /// Where the server is in its life.
    pub phases: Phases,
    /// What is counted,
    pub metrics: Metrics,
    /// traced,
    pub tracer: Tracer,
    /// and logged of each request.
    pub log: RequestLog,
}
