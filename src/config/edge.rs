//! Settings of what clients connect to: listening, bounds and waits.

use bytesize::ByteSize;
use clap::Args;
use humantime::Duration as Time;

use super::limits;
use super::values::{count, duration, message_size, positive_duration, size, size_text};
use crate::apis::Apis;

/// Listening, bounds and waits of the HTTP edge.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// Address or name to listen on. 0.0.0.0 or :: makes the server reachable from other machines.
    #[arg(long, env = "RESIDUAL_HOST", value_name = "HOST", default_value = "127.0.0.1")]
    pub host: String,

    /// Port of the HTTP API. 0 takes any free port; the log says which.
    #[arg(long, env = "RESIDUAL_HTTP_PORT", value_name = "PORT", default_value_t = 8000)]
    pub http_port: u16,

    /// Size of one upload, at most. Larger ones get 413.
    #[arg(long, env = "RESIDUAL_BODY_BYTES_MAX", value_name = "SIZE", default_value = size_text(limits::BODY_BYTES_MAX), value_parser = size)]
    pub body_bytes_max: ByteSize,

    /// Memory that all uploads hold together. Above it requests get 503.
    #[arg(long, env = "RESIDUAL_UPLOAD_MEMORY_MAX", value_name = "SIZE", default_value = size_text(limits::UPLOAD_MEMORY_MAX), value_parser = size)]
    pub upload_memory_max: ByteSize,

    /// Images in one request, at most. More get 413.
    #[arg(long, env = "RESIDUAL_REQUEST_IMAGES_MAX", value_name = "N", default_value_t = limits::REQUEST_IMAGES_MAX, value_parser = count(1, 4096))]
    pub request_images_max: usize,

    /// Open connections of each port, at most. More wait to be accepted.
    #[arg(long, env = "RESIDUAL_CONNECTIONS_MAX", value_name = "N", default_value_t = limits::CONNECTIONS_MAX, value_parser = count(1, 1_000_000))]
    pub connections_max: usize,

    /// What is spoken beside the native API. v2: Open Inference Protocol over HTTP. grpc: the same over gRPC, on --grpc-port.
    /// huggingface, kserve (v1, TensorFlow Serving), sagemaker, vertex, torchserve: the routes of these. What is not listed
    /// has no routes; none leaves the native API alone.
    #[arg(long, env = "RESIDUAL_APIS", value_name = "LIST", default_value = Apis::all().to_string())]
    pub apis: Apis,

    /// Time for a client to send the head of a request, and how long an idle connection is kept.
    #[arg(long, env = "RESIDUAL_HEADER_TIMEOUT", value_name = "TIME", default_value_t = limits::HEADER_TIMEOUT.into(), value_parser = positive_duration)]
    pub header_timeout: Time,

    /// Time for a client to send the body. Slower ones get 408.
    #[arg(long, env = "RESIDUAL_BODY_TIMEOUT", value_name = "TIME", default_value_t = limits::BODY_TIMEOUT.into(), value_parser = positive_duration)]
    pub body_timeout: Time,

    /// How long a client may take nothing of its answer before the connection is closed.
    #[arg(long, env = "RESIDUAL_WRITE_TIMEOUT", value_name = "TIME", default_value_t = limits::WRITE_TIMEOUT.into(), value_parser = positive_duration)]
    pub write_timeout: Time,

    /// Time for the server to answer, from the end of the upload. Later requests get 504.
    #[arg(long, env = "RESIDUAL_REQUEST_TIMEOUT", value_name = "TIME", default_value_t = limits::REQUEST_TIMEOUT.into(), value_parser = positive_duration)]
    pub request_timeout: Time,

    /// After a signal: keep serving this long with readiness off, so that a balancer can look away first.
    #[arg(long, env = "RESIDUAL_DRAIN_DELAY", value_name = "TIME", default_value_t = limits::DRAIN_DELAY.into(), value_parser = duration)]
    pub drain_delay: Time,

    /// After a signal (and the drain delay): time for requests in flight to finish.
    #[arg(long, env = "RESIDUAL_DRAIN_GRACE", value_name = "TIME", default_value_t = limits::DRAIN_GRACE.into(), value_parser = duration)]
    pub drain_grace: Time,
}

/// The port of gRPC and its bounds. Waits, memory and connections are those of the HTTP edge.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "gRPC")]
pub struct GrpcSettings {
    /// Port of the gRPC API. 0 takes any free port; the log says which. Default: 8001; where --http-port is 0, any free port.
    #[arg(long, env = "RESIDUAL_GRPC_PORT", value_name = "PORT")]
    pub grpc_port: Option<u16>,

    /// Size of one gRPC message, unpacked, at most. Larger ones get RESOURCE_EXHAUSTED.
    #[arg(long, env = "RESIDUAL_GRPC_MESSAGE_BYTES_MAX", value_name = "SIZE", default_value = size_text(limits::GRPC_MESSAGE_BYTES_MAX), value_parser = message_size)]
    pub grpc_message_bytes_max: ByteSize,

    /// gRPC calls that are open at once, on all connections together: as many with tensors, as many that are answered once
    /// without (health, metadata), and as many watches. More of a kind get RESOURCE_EXHAUSTED.
    #[arg(long, env = "RESIDUAL_GRPC_CALLS_MAX", value_name = "N", default_value_t = limits::GRPC_CALLS_MAX, value_parser = count(1, 1_000_000))]
    pub grpc_calls_max: usize,

    /// Requests of one gRPC stream that are answered beside each other. More wait in the connection.
    #[arg(long, env = "RESIDUAL_GRPC_STREAM_REQUESTS_MAX", value_name = "N", default_value_t = limits::GRPC_STREAM_REQUESTS_MAX, value_parser = count(1, 4096))]
    pub grpc_stream_requests_max: usize,

    /// How long a client may send nothing on a gRPC stream. Longer silent ones end with DEADLINE_EXCEEDED.
    #[arg(long, env = "RESIDUAL_GRPC_STREAM_TIMEOUT", value_name = "TIME", default_value_t = limits::GRPC_STREAM_TIMEOUT.into(), value_parser = positive_duration)]
    pub grpc_stream_timeout: Time,
}
