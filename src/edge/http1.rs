//! HTTP/1.1 on one connection: one request after the other.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tower::ServiceExt as _;

use super::closing::{Asked, Closing};
use super::guests::Open;
use super::hardening;
use super::limits::ConnectionLimits;
use super::listener::Wire;
use super::peer::Peer;
use super::stream::Stream;
use super::tls::Alpn;

/// What hyper reads at once, at most; it starts with 8 KiB and doubles while a body fills it. A photo of 100 KB then takes
/// few reads, and a thousand connections still no more than 64 MiB.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// How long a connection that was asked to end may take to begin its first request.
const FIRST_REQUEST_TIME: Duration = Duration::from_millis(250);

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
        let traffic = closing.traffic();
        let service = self
            .router
            .map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                request.map(Body::new)
            })
            .map_response(move |response| hardening::harden(response, is_tls));
        let service = service_fn(move |request| {
            let open = traffic.begin();
            let answered = service.clone().oneshot(request);
            // A request is open until its answer has been taken.
            async move { answered.await.map(|response| response.map(|body| Held { body, _open: open })) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_header_size(limits.header_bytes_max)
            .max_buf_size(READ_BUFFER_BYTES_MAX.max(limits.header_bytes_max))
            .keep_alive(!closing.is_after_one())
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let asked = tokio::select! {
            ended = &mut connection => return ended,
            asked = closing.asked() => asked,
        };
        // Whoever waits behind a flood of silent connections waits for all of them.
        let patience = if asked == Asked::ToMakeRoom { Duration::ZERO } else { FIRST_REQUEST_TIME };
        // hyper would close a connection that has only just come without a word, though its request may lie in the socket. And
        // where nothing but half a head ever came, it would wait for the other half.
        tokio::select! {
            biased;
            ended = &mut connection => return ended,
            () = closing.first_request() => {}
            () = tokio::time::sleep(patience) => return Ok(()),
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}

/// The body of an answer, whose request is open until it is dropped.
struct Held {
    body: Body,
    _open: Open,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
