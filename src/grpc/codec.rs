//! Protobuf for tonic's generated code. A request that does not decode is the client's mistake, where tonic's own codec
//! calls it an internal error.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use super::status::MessageError;

/// Encodes `T`, decodes `U`. Named in `build.rs`.
#[derive(Debug)]
pub(super) struct Protobuf<T, U>(PhantomData<(T, U)>);

/// Decodes `U`.
#[derive(Debug)]
pub(super) struct ProtobufDecoder<U>(PhantomData<U>);

impl<T, U> Default for Protobuf<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Protobuf<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProtobufDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProtobufDecoder(PhantomData)
    }
}

impl<U: Message + Default> Decoder for ProtobufDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(message).map(Some).map_err(|error| MessageError::Broken(error.to_string()).into())
    }
}
