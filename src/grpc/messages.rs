//! Request body -> messages: whole, unpacked, and under bounds of size, memory and time, before anything decodes them.
//!
//! tonic would make room for whatever a message's head announces, unpack and decode on an async thread, keep the room until
//! the call ends, and wait for ever. It gets messages that are complete; of those with tensors it gets the head of an empty
//! one, and the handler the message itself.

use std::pin::pin;
use std::time::Instant;

use axum::body::{Body, Bytes};
use futures_util::stream::{self, StreamExt as _};
use http_body_util::BodyExt as _;
use tonic::Status;

use super::arrived::Arrived;
use super::call::Call;
use super::limits::GrpcLimits;
use super::methods::{Kind, Method};
use super::status::MessageError;
use super::unpack::{Packing, unpack};
use crate::edge::{UploadMemory, UploadShare};
use crate::pipeline::PreparePool;
use crate::shutdown::{Phase, Phases};

/// Before each message: whether it is packed, and its length in four bytes.
const HEAD_BYTES: usize = 5;
/// Messages without tensors name a model or a service.
const SMALL_BYTES_MAX: u64 = 1024 * 1024;
/// Those of health and reflection that may come or be answered again and again are one name. Reflection quotes it in its
/// errors, in whose head each byte may take three, and clients refuse heads above 8 KiB.
const NAME_BYTES_MAX: u64 = 2 * 1024;
/// A message's buffer grows from here, doubling. Most photos of the size that models see fit at once.
const BUFFER_BYTES_MIN: usize = 64 * 1024;

/// The messages of one call.
#[derive(Debug)]
pub(super) struct Messages {
    body: Body,
    /// What was read of the body and belongs to no message yet.
    chunk: Bytes,
    first: bool,
    /// How packed messages are packed.
    packing: Option<Packing>,
    started: Instant,
    rules: Rules,
}

/// What messages come under.
#[derive(Debug)]
pub(super) struct Rules {
    pub limits: GrpcLimits,
    pub memory: UploadMemory,
    pub pool: PreparePool,
    pub phases: Phases,
    pub method: Method,
    pub call: Call,
}

impl Messages {
    /// Messages of a call that has just begun. `encoding` is what its head says of them.
    pub(super) fn new(body: Body, encoding: Option<&[u8]>, rules: Rules) -> Result<Self, MessageError> {
        let packing = Packing::named(encoding)?;
        Ok(Self { body, chunk: Bytes::new(), first: true, packing, started: Instant::now(), rules })
    }

    /// The same as a body, each message with its head in front.
    pub(super) fn into_body(self) -> Body {
        let messages = stream::unfold(Some(self), async |messages| {
            let mut messages = messages?;
            match messages.next().await {
                Ok(Some(message)) => Some((Ok(message), Some(messages))),
                Ok(None) => None,
                Err(error) => Some((Err(Status::from(error)), None)),
            }
        });
        // After an error tonic may ask once more than a stream must bear.
        Body::from_stream(messages.fuse())
    }

    /// The next message with its head, not packed. None after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, MessageError> {
        let limits = self.rules.limits;
        // A stream may be silent for longer between its messages, and any other call has one clock.
        let clock = if self.rules.method.streams { None } else { Some(self.started + limits.body_timeout) };
        let Some((head, deadline)) = self.head(clock).await? else {
            // Of a call that takes one message, tonic would call its absence its own fault.
            let is_missing = self.first && !self.rules.method.streams;
            return if is_missing { Err(MessageError::Broken("there is none".to_owned())) } else { Ok(None) };
        };
        if !self.first && !self.rules.method.streams {
            return Err(MessageError::Second);
        }
        self.first = false;
        let [packed, len @ ..] = head;
        if packed > 1 {
            // tonic would call that its own fault.
            return Err(MessageError::Broken(format!("its compression flag is {packed}; it is 0 or 1")));
        }
        let len = u32::from_be_bytes(len) as usize;
        let kind = self.rules.method.kind;
        let max = limits.message_bytes_max.min(match kind {
            Kind::Tensors => u64::MAX,
            Kind::Brief => SMALL_BYTES_MAX,
            Kind::Open => NAME_BYTES_MAX,
        });
        if len as u64 > max {
            return Err(MessageError::TooLarge { found: len as u64, max });
        }
        let mut share = self.rules.memory.share();
        let mut message = self.rest(head, len, deadline, &mut share).await?;
        // What claims to be packed where nothing was said of it, tonic refuses.
        if packed == 1
            && let Some(packing) = self.packing
        {
            (message, share) = self.rules.unpacked(packing, message, share, max, deadline).await?;
        }
        let message = Bytes::from(message);
        if kind != Kind::Tensors {
            // tonic copies it, and then this copy goes: one an async thread at a time.
            self.rules.call.copied(share);
            return Ok(Some(message));
        }
        self.rules.call.keep(Arrived { message: message.slice(HEAD_BYTES..), share });
        // Nothing follows it. tonic still sees, and refuses, what is packed and was not said to be.
        Ok(Some(Bytes::copy_from_slice(&[message[0], 0, 0, 0, 0])))
    }

    /// The head of the next message, and until when all of it must be here.
    async fn head(&mut self, clock: Option<Instant>) -> Result<Option<([u8; HEAD_BYTES], Instant)>, MessageError> {
        let (mut head, mut found) = ([0; HEAD_BYTES], 0);
        let mut deadline = clock;
        loop {
            if self.chunk.is_empty() && !self.read(deadline).await? {
                return if found == 0 { Ok(None) } else { Err(MessageError::Cut { found, len: HEAD_BYTES }) };
            }
            let until = *deadline.get_or_insert_with(|| Instant::now() + self.rules.limits.body_timeout);
            let part = self.chunk.split_to(self.chunk.len().min(HEAD_BYTES - found));
            head[found..found + part.len()].copy_from_slice(&part);
            found += part.len();
            if found == HEAD_BYTES {
                return Ok(Some((head, until)));
            }
        }
    }

    /// The whole message behind its head, in one buffer that is charged for its capacity. hyper's own chunks are not kept:
    /// each may hold on to a read buffer that is far larger than itself.
    async fn rest(
        &mut self,
        head: [u8; HEAD_BYTES],
        len: usize,
        deadline: Instant,
        share: &mut UploadShare,
    ) -> Result<Vec<u8>, MessageError> {
        let all = HEAD_BYTES + len;
        let mut message = Vec::new();
        let mut part = Bytes::copy_from_slice(&head);
        loop {
            let len = message.len() + part.len();
            if len > message.capacity() {
                let capacity = len.max(message.capacity() * 2).max(BUFFER_BYTES_MIN).min(all);
                share.grow((capacity - message.capacity()) as u64)?;
                message.reserve_exact(capacity - message.len());
            }
            message.extend_from_slice(&part);
            if message.len() == all {
                return Ok(message);
            }
            if self.chunk.is_empty() && !self.read(Some(deadline)).await? {
                return Err(MessageError::Cut { found: message.len() - HEAD_BYTES, len: all - HEAD_BYTES });
            }
            part = self.chunk.split_to(self.chunk.len().min(all - message.len()));
        }
    }

    /// Reads until there are bytes; false at the end of the body. Without a deadline, until the stream has been silent for
    /// too long or the server shuts down.
    async fn read(&mut self, deadline: Option<Instant>) -> Result<bool, MessageError> {
        let limits = self.rules.limits;
        let silent = Instant::now() + limits.stream_timeout;
        loop {
            let frame = self.body.frame();
            let frame = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), frame)
                    .await
                    .map_err(|_| MessageError::Late(limits.body_timeout))?,
                None => {
                    let mut phases = self.rules.phases.clone();
                    let draining = pin!(phases.reached(Phase::Draining));
                    tokio::select! {
                        frame = tokio::time::timeout_at(silent.into(), frame) => {
                            frame.map_err(|_| MessageError::Silent(limits.stream_timeout))?
                        }
                        () = draining => return Err(MessageError::ShuttingDown),
                    }
                }
            };
            match frame {
                None => return Ok(false),
                Some(Err(error)) => {
                    self.rules.call.report(|report| report.left = true);
                    return Err(MessageError::Reset(error.to_string()));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => {
                        self.chunk = data;
                        return Ok(true);
                    }
                    // Trailers, which clients of this protocol have no use for.
                    Ok(_) | Err(_) => {}
                },
            }
        }
    }
}

impl Rules {
    /// Unpacks a message, in the pool: a megabyte takes milliseconds.
    async fn unpacked(
        &self,
        packing: Packing,
        packed: Vec<u8>,
        packed_share: UploadShare,
        max: u64,
        deadline: Instant,
    ) -> Result<(Vec<u8>, UploadShare), MessageError> {
        let mut share = self.memory.share();
        let work = move || {
            let unpacked = unpack(packing, &packed[HEAD_BYTES..], &[0; HEAD_BYTES], max, &mut share);
            drop((packed, packed_share));
            unpacked.map(|message| (message, share))
        };
        let unpacked = self.pool.run(deadline, work).await;
        let (mut message, share) =
            unpacked.map_err(|_late_or_lost| MessageError::NoThread(self.limits.body_timeout))??;
        let len = u32::try_from(message.len() - HEAD_BYTES).map_err(|_| MessageError::UnpackedTooLarge { max })?;
        message[1..HEAD_BYTES].copy_from_slice(&len.to_be_bytes());
        Ok((message, share))
    }
}
