//! The ports that the server listens on, and what is spoken on each.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::apis::Api;
use crate::config::{HttpSettings, Settings, limits};
use crate::edge::{self, ConnectionLimits, Drained, Http1, Http2, Http2Limits, Shared, Wire};
use crate::grpc::{self, Grpc, GrpcLimits};
use crate::http::{self, App};

/// Bound and not yet served: clients that connect wait.
pub(super) struct Ports {
    http: Port,
    /// Only where that API is spoken.
    grpc: Option<Port>,
}

struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

/// Served until the drain.
#[derive(Debug)]
pub(super) struct Served {
    /// Where HTTP is spoken.
    pub(super) http: SocketAddr,
    /// Where gRPC is spoken, if it is.
    pub(super) grpc: Option<SocketAddr>,
    edges: Vec<JoinHandle<Drained>>,
}

impl Ports {
    /// Binds every port that the settings ask for.
    ///
    /// # Errors
    /// If one of them cannot be bound; the text names the setting.
    pub(super) async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        let HttpSettings { host, http_port, apis, .. } = &settings.http;
        let http = Port::bind(host, *http_port, "--http-port").await?;
        let grpc = match apis.has(Api::Grpc) {
            true => Some(Port::bind(host, settings.grpc_port(), "--grpc-port, or leave grpc out of --apis").await?),
            false => None,
        };
        Ok(Self { http, grpc })
    }

    /// Where HTTP will be spoken.
    pub(super) fn http(&self) -> SocketAddr {
        self.http.address
    }

    /// Serves them.
    pub(super) fn serve(self, settings: &Settings, app: &App, grpc: Grpc, shared: &Shared) -> Served {
        let (http, grpc_address) = (self.http.address, self.grpc.as_ref().map(|port| port.address));
        let mut edges = vec![self.http.serve(Http1 { router: http::router(app) }, settings, shared)];
        if let Some(port) = self.grpc {
            let limits = Http2Limits { calls_max: limits::GRPC_CONNECTION_CALLS_MAX };
            edges.push(port.serve(Http2 { router: grpc::router(grpc), limits }, settings, shared));
        }
        Served { http, grpc: grpc_address, edges }
    }
}

impl Port {
    async fn bind(host: &str, port: u16, other: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((host, port))
            .await
            .with_context(|| format!("listen on {host} port {port}; choose another with --host and {other}"))?;
        let address = listener.local_addr().context("read the listener's address")?;
        Ok(Self { listener, address })
    }

    fn serve(self, wire: impl Wire, settings: &Settings, shared: &Shared) -> JoinHandle<Drained> {
        let (limits, grace) = (connection_limits(&settings.http), *settings.http.drain_grace);
        let (phases, connections) = (shared.phases.clone(), shared.metrics.connections.clone());
        shared.metrics.connections_max.add(i64::try_from(limits.connections_max).unwrap_or(i64::MAX));
        // Joined by `drained`.
        tokio::spawn(edge::serve(self.listener, wire, limits, phases, connections, grace))
    }
}

impl Served {
    /// Waits until the drain has ended on every port.
    pub(super) async fn drained(self) -> Drained {
        let mut drained = Drained::All;
        for edge in self.edges {
            // The accept loops neither panic nor are aborted.
            if edge.await.unwrap_or(Drained::GraceOver) == Drained::GraceOver {
                drained = Drained::GraceOver;
            }
        }
        drained
    }
}

/// Bounds on calls, from the settings.
pub(super) fn grpc_limits(settings: &Settings) -> GrpcLimits {
    GrpcLimits {
        message_bytes_max: settings.grpc.grpc_message_bytes_max.as_u64(),
        calls_max: settings.grpc.grpc_calls_max,
        stream_requests_max: settings.grpc.grpc_stream_requests_max,
        stream_timeout: *settings.grpc.grpc_stream_timeout,
        body_timeout: *settings.http.body_timeout,
    }
}

fn connection_limits(http: &HttpSettings) -> ConnectionLimits {
    ConnectionLimits {
        connections_max: http.connections_max,
        header_bytes_max: limits::HEADER_BYTES_MAX,
        header_timeout: *http.header_timeout,
        write_timeout: *http.write_timeout,
    }
}
