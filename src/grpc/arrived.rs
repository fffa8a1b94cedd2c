//! A request with tensors that has arrived whole -> what it says. Its parts are counted and its values charged for before
//! anything is decoded, and where it is large all of that happens in the prepare pool.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use prost::Message as _;

use super::proto::ModelInferRequest;
use super::scan;
use super::status::MessageError;
use super::tensors::{self, Contents};
use crate::edge::UploadShare;
use crate::oip::{InferRequest, OipError};
use crate::pipeline::PreparePool;

/// Messages up to this size are decoded where they are: the way through the pool would wait for the photos there.
const INLINE_BYTES_MAX: usize = 256 * 1024;
/// Longest name and id that are kept beside the request.
const NAME_BYTES_MAX: usize = 1024;

/// One `ModelInferRequest`, not packed, and its share of the uploads' memory.
#[derive(Debug)]
pub(super) struct Arrived {
    pub message: Bytes,
    pub share: UploadShare,
}

/// What it says.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Empty if it is longer than any name, as are the next two.
    pub model: String,
    pub version: String,
    pub id: String,
    pub request: Result<(InferRequest, Contents), OipError>,
    /// Must live as long as the request's tensors do.
    pub share: UploadShare,
}

impl Arrived {
    /// Decodes it, if a large one finds a thread within `timeout`.
    ///
    /// # Errors
    /// [`MessageError`] if it is no such message, holds too much, or found no thread.
    pub(super) async fn decoded(self, pool: &PreparePool, timeout: Duration) -> Result<Decoded, MessageError> {
        if self.message.len() <= INLINE_BYTES_MAX {
            return self.decode();
        }
        let decoded = pool.run(Instant::now() + timeout, || self.decode()).await;
        decoded.map_err(|_late_or_lost| MessageError::NoThread(timeout))?
    }

    fn decode(mut self) -> Result<Decoded, MessageError> {
        self.share.grow(scan::decoded_bytes(&self.message)?)?;
        let broken = |error: prost::DecodeError| MessageError::Broken(error.to_string());
        let message = ModelInferRequest::decode(self.message).map_err(broken)?;
        // They go into metrics and answers, which must not be of any size.
        let short = |text: &String| if text.len() <= NAME_BYTES_MAX { text.clone() } else { String::new() };
        let (model, version, id) = (short(&message.model_name), short(&message.model_version), short(&message.id));
        Ok(Decoded { model, version, id, request: tensors::request(message), share: self.share })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::super::proto::InferTensorContents;
    use super::super::proto::model_infer_request::InferInputTensor;
    use super::*;
    use crate::edge::UploadMemory;
    use crate::pipeline::decode::DecodeOptions;
    use crate::pipeline::decode::budget::MemoryBudget;

    const TIMEOUT: Duration = Duration::from_millis(50);

    fn arrived(memory: &UploadMemory, values: usize) -> Arrived {
        let contents = Some(InferTensorContents { fp32_contents: vec![0.5; values], ..Default::default() });
        let input = InferInputTensor { datatype: "FP32".to_owned(), contents, ..Default::default() };
        let request = ModelInferRequest { id: "x".repeat(1025), inputs: vec![input], ..Default::default() };
        Arrived { message: request.encode_to_vec().into(), share: memory.share() }
    }

    #[tokio::test]
    async fn a_large_request_is_decoded_in_the_pool_and_a_small_one_at_once() {
        let pool = PreparePool::new(1, Arc::new(MemoryBudget::new(0)), DecodeOptions::default());
        let memory = UploadMemory::new(1 << 20);
        let (end, ended) = mpsc::channel::<()>();
        let busy = move || {
            let _ = ended.recv();
        };
        pool.start(Instant::now() + TIMEOUT, busy).await.unwrap();
        let small = arrived(&memory, 1000).decoded(&pool, TIMEOUT).await.unwrap();
        assert_eq!((small.id.as_str(), memory.held_bytes()), ("", 8000));
        let (request, contents) = small.request.unwrap();
        assert_eq!((request.inputs[0].raw.len(), contents), (4000, Contents::Typed));
        let late = arrived(&memory, 100_000).decoded(&pool, TIMEOUT).await.unwrap_err();
        assert_eq!(late, MessageError::NoThread(TIMEOUT));
        drop(end);
        let large = arrived(&memory, 100_000).decoded(&pool, Duration::from_secs(60)).await.unwrap();
        assert_eq!(large.request.unwrap().0.inputs[0].raw.len(), 400_000);
        let full = arrived(&memory, 150_000).decoded(&pool, Duration::from_secs(60)).await.unwrap_err();
        assert!(matches!(full, MessageError::UploadsFull(_)));
    }
}
