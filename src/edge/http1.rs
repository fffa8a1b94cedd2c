//! HTTP/1.1 on one connection: one request after the other.

use std::pin::pin;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tower::ServiceExt as _;

use super::closing::Closing;
use super::hardening;
use super::limits::ConnectionLimits;
use super::listener::Wire;
use super::peer::Peer;
use super::stream::Stream;
use super::tls::Alpn;

/// What hyper reads at once, at most; it starts with 8 KiB and doubles while a body fills it. A photo of 100 KB then takes
/// few reads, and a thousand connections still no more than 64 MiB.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Serves these routes.
#[derive(Debug, Clone)]
pub struct Http1 {
    /// What answers.
    pub router: Router,
    /// Whether it asks who is connected: each request carries its [`Peer`] then.
    pub tells_peers: bool,
}

impl Wire for Http1 {
    const ALPN: Alpn = Alpn::Http1;

    async fn serve(
        self,
        stream: Stream,
        peer: Peer,
        limits: ConnectionLimits,
        mut closing: Closing,
    ) -> Result<(), hyper::Error> {
        let (peer, is_tls) = (self.tells_peers.then_some(peer), stream.is_tls());
        let service = self
            .router
            .map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                request.map(Body::new)
            })
            .map_response(move |response| hardening::harden(response, is_tls));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_header_size(limits.header_bytes_max)
            .max_buf_size(READ_BUFFER_BYTES_MAX.max(limits.header_bytes_max))
            .keep_alive(!closing.is_after_one())
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut connection = pin!(connection);
        tokio::select! {
            ended = &mut connection => return ended,
            () = closing.asked() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}
