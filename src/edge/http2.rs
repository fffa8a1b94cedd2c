//! HTTP/2 on one connection, from its first byte on (prior knowledge): many calls beside each other.
//!
//! hyper has clocks for neither an idle connection nor a client that opens no window for its answers. Both are kept here.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use http_body::Frame;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Notify;
use tower::ServiceExt as _;

use super::calls::{Call, Calls, Overdue};
use super::closing::{Asked, Closing};
use super::guests::{Open, Traffic};
use super::limits::ConnectionLimits;
use super::listener::Wire;
use super::peer::Peer;
use super::stream::Stream;
use super::tls::Alpn;

/// What a client may send of one call before the server has read any of it: photos of the size that models see, about
/// 100 KiB, fit whole, so that no round trip stands between their parts. What was read is charged to the uploads' memory.
const CALL_WINDOW_BYTES: u32 = 256 * 1024;
/// And of all calls of a connection together. This is charged to nobody. Calls are read as they come, unless their client
/// takes no answers, which the write timeout ends, or has sent more of a stream than is answered at once; `connections_max`
/// of them hold 1 GiB.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// After so long without a sign of life the client is asked for one, whether calls are open or not: a call may wait for
/// its client for hours.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// And without an answer within this time the connection is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// An answer leaves in parts of this size, the smallest frame size that every client accepts (RFC 9113, section 4.2). At
/// most one part waits inside hyper for its client; the rest stays where the write timeout sees it.
const ANSWER_PART_BYTES: usize = 16 * 1024;

/// How long a client that was told to leave may keep its connection once it has no call open: it may still be reading the
/// end of an answer.
const GOODBYE_TIME: Duration = Duration::from_secs(5);
/// And one that was told before its first call.
const FIRST_CALL_TIME: Duration = Duration::from_millis(250);

/// Bounds of the protocol itself.
#[derive(Debug, Clone, Copy)]
pub struct Http2Limits {
    /// Open calls of one connection; clients hold further ones back.
    pub calls_max: u32,
}

/// Serves these routes.
#[derive(Debug, Clone)]
pub struct Http2 {
    /// What answers.
    pub router: Router,
    /// Under which bounds.
    pub limits: Http2Limits,
    /// Whether it asks who is connected: each request carries its [`Peer`] then.
    pub tells_peers: bool,
}

impl Wire for Http2 {
    const ALPN: Alpn = Alpn::Http2;

    async fn serve(
        self,
        stream: Stream,
        peer: Peer,
        limits: ConnectionLimits,
        mut closing: Closing,
    ) -> Result<(), hyper::Error> {
        let calls = Calls::new(Instant::now());
        let first = Arc::new(Notify::new());
        let traffic = closing.traffic();
        let service = {
            let (router, calls, first) = (self.router, calls.clone(), Arc::clone(&first));
            let traffic = traffic.clone();
            let peer = self.tells_peers.then_some(peer);
            service_fn(move |mut request: Request<Incoming>| {
                let (call, open) = (calls.begin(), traffic.begin());
                let traffic = traffic.clone();
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                first.notify_one();
                let answered = router.clone().oneshot(request.map(Body::new));
                async move {
                    Ok::<_, std::convert::Infallible>(
                        answered.await?.map(|body| Answer::new(body, call, open, traffic)),
                    )
                }
            })
        };
        let header_bytes_max = u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX);
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.calls_max)
            // Clients that share a connection may give up together, after a stall of this process say. More is an attack.
            .max_pending_accept_reset_streams(usize::try_from(self.limits.calls_max).ok())
            .max_header_list_size(header_bytes_max)
            .initial_stream_window_size(CALL_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let after_one = closing.is_after_one();
        // Since when the client knows that it should leave.
        let mut told: Option<Instant> = None;
        // Often enough that no limit is kept for more than twice its time.
        let mut clock = tokio::time::interval(limits.header_timeout.min(limits.write_timeout));
        loop {
            // A client that has never called may not even speak the protocol, and reads no goodbye.
            let patience = if calls.have_begun() { GOODBYE_TIME } else { FIRST_CALL_TIME };
            let goodbye = told.map(|told| told + patience);
            let leaves = tokio::select! {
                ended = &mut connection => return ended,
                asked = closing.asked(), if told.is_none() => {
                    if asked == Asked::ToMakeRoom && !calls.have_begun() {
                        return Ok(());
                    }
                    true
                }
                () = first.notified(), if after_one && told.is_none() => true,
                _ = clock.tick() => match calls.overdue(Instant::now(), &limits) {
                    None => false,
                    Some(Overdue::Idle) => true,
                    // Nothing that waits for this client would ever be taken.
                    Some(Overdue::Unread) => return Ok(()),
                },
                () = until(goodbye) => {
                    if !traffic.is_open() {
                        return Ok(());
                    }
                    told = Some(Instant::now());
                    false
                }
            };
            if leaves && told.is_none() {
                connection.as_mut().graceful_shutdown();
                told = Some(Instant::now());
            }
        }
    }
}

/// Waits for a moment; for ever if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// The body of an answer, in parts that its call keeps account of.
struct Answer {
    body: Body,
    /// What is left of the frame that was taken from `body` last.
    rest: Bytes,
    call: Call,
    /// None while there is nothing to say: a watch may be silent for ever, and must not keep others out for so long.
    open: Option<Open>,
    traffic: Traffic,
    has_spoken: bool,
}

impl Answer {
    fn new(body: Body, call: Call, open: Open, traffic: Traffic) -> Self {
        Self { body, rest: Bytes::new(), call, open: Some(open), traffic, has_spoken: false }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let me = &mut *self;
        // hyper asks for the next part once the client has made room for the last one.
        me.call.taken();
        while me.rest.is_empty() {
            let Poll::Ready(frame) = Pin::new(&mut me.body).poll_frame(cx) else {
                if me.has_spoken {
                    me.open = None;
                }
                return Poll::Pending;
            };
            me.has_spoken = true;
            me.open.get_or_insert_with(|| me.traffic.begin());
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => me.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        me.call.offer(Instant::now());
        let part = me.rest.split_to(me.rest.len().min(ANSWER_PART_BYTES));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}
