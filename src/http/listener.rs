//! Connections: accepted under a bound, each with a time limit for its heads, all closed gently at the end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt as _;

use super::limits::HttpLimits;
use crate::shutdown::{Phase, Phases};

/// How long accepting pauses when the process has run out of file descriptors: trying again at once would only burn a
/// core until some connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How the last connections ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    All,
    /// The grace limit came first.
    GraceOver,
}

/// Serves `router` on `listener` until the drain, then finishes the requests in flight for at most `grace`.
///
/// While the drain lasts, new connections are still accepted: probes must be able to read that readiness is off, and
/// late clients get a 503 instead of a refused connection, up to the moment in which the last connections close. Only a
/// drain delay, in which a balancer looks away, spares them all.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    mut phases: Phases,
    connections: IntGauge,
    grace: Duration,
) -> Drained {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let accept = Acceptor { listener, router, limits, places, connections };
    tokio::select! {
        () = accept.run(Some(&graceful)) => {}
        () = phases.reached(Phase::Draining) => {}
    }
    // What was sent before the drain and still lies in a socket is read now, and answered with 503. hyper would close such
    // a connection without a word.
    let settled = tokio::time::sleep(DRAIN_SETTLE_TIME);
    tokio::select! {
        () = accept.run(Some(&graceful)) => {}
        () = settled => {}
    }
    tokio::select! {
        () = accept.run(None) => Drained::All,
        () = graceful.shutdown() => Drained::All,
        () = tokio::time::sleep(grace) => Drained::GraceOver,
    }
}

/// Between the last moment in which requests are taken and the closing of idle connections.
const DRAIN_SETTLE_TIME: Duration = Duration::from_millis(100);

/// What hyper reads at once, at most; it starts with 8 KiB and doubles while a body fills it. A photo of 100 KB then takes
/// few reads, and a thousand connections still no more than 64 MiB.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

struct Acceptor {
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    places: Arc<Semaphore>,
    connections: IntGauge,
}

impl Acceptor {
    /// Accepts for ever. Without `graceful`, the drain has begun: a connection then carries one request.
    async fn run(&self, graceful: Option<&GracefulShutdown>) {
        loop {
            // The place comes first: above the bound, clients wait in the backlog and cost this process nothing.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _peer)) => self.spawn(stream, place, graceful.map(GracefulShutdown::watcher)),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, place: OwnedSemaphorePermit, watcher: Option<Watcher>) {
        // Answers are small and complete: waiting to fill a segment would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
        if let Err(error) = limit_writes(&stream, self.limits.write_timeout) {
            tracing::debug!(%error, "failed to set the write timeout");
        }
        let service =
            self.router.clone().map_request(|request: hyper::Request<hyper::body::Incoming>| request.map(Body::new));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_header_size(self.limits.header_bytes_max)
            .max_buf_size(READ_BUFFER_BYTES_MAX.max(self.limits.header_bytes_max))
            .keep_alive(watcher.is_some())
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let open = OpenConnection::enter(self.connections.clone());
        // Ends with its client, or by the drain that its watcher carries, or with the runtime.
        tokio::spawn(async move {
            let _held = (place, open);
            let result = match watcher {
                Some(watcher) => watcher.watch(connection).await,
                None => connection.await,
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

/// Lets the system end a connection whose client takes nothing for this long. hyper has no clock for writing, and a client
/// that asks and never reads would keep its place for ever.
fn limit_writes(stream: &TcpStream, timeout: Duration) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    return socket2::SockRef::from(stream).set_tcp_user_timeout(Some(timeout));
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (stream, timeout);
        Ok(())
    }
}

/// Errors of `accept` that concern a client that is already gone, not this listener.
fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

/// Counts an open connection while it lives.
struct OpenConnection(IntGauge);

impl OpenConnection {
    fn enter(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
