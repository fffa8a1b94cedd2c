//! Every bound of the server by name: its default, its unit, and why it is that one. Most are a setting of the same
//! name; `docs/LIMITS.md` has all of them in one table.

use std::time::Duration;

use bytesize::ByteSize;

use crate::pipeline::decode::DecodeLimits;

/// One upload, with everything in it. Phone photos are below 10 MiB, raw camera JPEGs below 20.
pub const BODY_BYTES_MAX: ByteSize = ByteSize::mib(20);
/// All uploads in memory together.
pub const UPLOAD_MEMORY_MAX: ByteSize = ByteSize::mib(256);
/// Images in one request.
pub const REQUEST_IMAGES_MAX: usize = 32;
/// From the last answer (or the opening) of a connection to the end of the next request's head. The same clock closes
/// idle connections, so it is above the 60 seconds after which common balancers drop theirs: the other way round they
/// would reuse a connection that is just being closed.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(65);
/// From the end of the head to the end of the body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// From the opening of a connection to the end of its TLS handshake, which takes three trips and a signature.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer that is ready.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// From the end of the body to the answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Head of a request, and the read buffer of a connection. Browsers and balancers stay below 8 KiB.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Open connections of one port. Above it new ones wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 1024;
/// Keys of one file. Every request is compared with all of them.
pub const API_KEYS_MAX: usize = crate::guard::KEYS_MAX;
/// Characters of a key. Shorter ones can be guessed.
pub const API_KEY_LEN_MIN: usize = crate::guard::KEY_LEN_MIN;
/// Characters of a key. Longer ones are files that somebody took for a key.
pub const API_KEY_LEN_MAX: usize = crate::guard::KEY_LEN_MAX;
/// Clients without a key whose rate is remembered. Above it, whoever owes least is forgotten first.
pub const RATE_CLIENTS_MAX: usize = crate::guard::STRANGERS_MAX;
/// How often the files of certificates and keys are read again. What is broken in two looks is told.
pub const SECRETS_INTERVAL: Duration = Duration::from_secs(5);
/// Before a certificate expires: how long the log warns, at the start and when it is read again.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// The port of gRPC that Triton's clients expect.
pub const GRPC_PORT: u16 = 8001;
/// One gRPC message. As an upload; a batch of 32 samples of 224x224 in 32 bits has 18.4 MiB.
pub const GRPC_MESSAGE_BYTES_MAX: ByteSize = BODY_BYTES_MAX;
/// And whatever the settings say, as no protobuf library reads more.
pub const GRPC_MESSAGE_BYTES_LIMIT: ByteSize = ByteSize::gib(2);
/// Open calls of each of three kinds, of all connections: with tensors; asked and answered once without; and further
/// streams. A call that waits for its client holds about 12 KiB beside what is charged to the uploads, so this is 144 MiB.
pub const GRPC_CALLS_MAX: usize = 4096;
/// Open calls of one connection. Clients hold further ones back, and more than the queue holds would only be refused.
pub const GRPC_CONNECTION_CALLS_MAX: u32 = 256;
/// Requests of one stream that are answered beside each other.
pub const GRPC_STREAM_REQUESTS_MAX: usize = 32;
/// How long a stream may be silent between its requests. Clients that come back after minutes open another one.
pub const GRPC_STREAM_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Images that wait for a worker, in preparation or prepared. Above it requests get 503 at once.
pub const QUEUE_IMAGES_MAX: usize = 256;
/// How long a run of a model may take, in times of `REQUEST_TIMEOUT`. By then nobody waits for it any more.
pub const STUCK_AFTER_TIMEOUTS: u32 = 3;
/// How long a batch waits for company while cores are free.
pub const BATCH_DELAY: Duration = Duration::ZERO;
/// Width of an image in pixels.
pub const IMAGE_WIDTH_MAX: u32 = DecodeLimits::DEFAULT.width_max;
/// Height of an image in pixels.
pub const IMAGE_HEIGHT_MAX: u32 = DecodeLimits::DEFAULT.height_max;
/// Pixels of an image.
pub const IMAGE_PIXELS_MAX: u64 = DecodeLimits::DEFAULT.pixels_max;
/// What all decodes hold at once. The pixels of the largest photo are 192 MB; decoders hold them more than once.
pub const DECODE_MEMORY_MAX: ByteSize = ByteSize::gib(1);
/// After the first signal: how long requests in flight may take to finish.
pub const DRAIN_GRACE: Duration = Duration::from_secs(25);
/// After the first signal: how long the server keeps answering with readiness off.
pub const DRAIN_DELAY: Duration = Duration::ZERO;
/// How often `--watch` looks when it is given no time. Files must be still for one such interval, so a swap comes at most
/// two of them after the last byte.
pub const WATCH_INTERVAL: &str = "2s";
/// Without `--watch`, only SIGHUP makes the server look.
pub const WATCH_OFF: Duration = Duration::ZERO;
