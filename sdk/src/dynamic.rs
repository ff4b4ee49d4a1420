//! Messages that are known by descriptor alone: their gRPC codec, and their JSON form.

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

pub use self::{
    numbers::EXACT_INTEGER_MAX,
    wire::{MessageType, WireError, WireMessage, field_of},
};

mod numbers;
#[cfg(test)]
mod tests;
mod text;
mod wire;

/// How messages are written as JSON: field names as in the contract, and every field. Numbers are written by
/// [`numbers::Numbers`].
const JSON: SerializeOptions = SerializeOptions::new()
    .use_proto_field_name(true)
    .skip_default_fields(false)
    .stringify_64_bit_integers(false);

/// Reads a message from JSON. Unknown fields are refused. Integers and floats are read as numbers or as text, `null`
/// as a field that is not set (the JSON mapping of protobuf).
///
/// # Errors
/// When the JSON is not one of this message.
pub fn from_json(
    message: MessageDescriptor,
    json: &serde_json::Value,
) -> Result<DynamicMessage, serde_json::Error> {
    DynamicMessage::deserialize_with_options(message, json, &DeserializeOptions::new())
}

/// Writes a message as JSON: every field that the contract does not call optional, set or not. A 64-bit integer
/// beyond ±[`EXACT_INTEGER_MAX`] is text, any other a number; a `float` has the fewest digits that give the same
/// float, and a whole `double` no fraction.
///
/// # Errors
/// When a well-known type holds what has no JSON form, such as a duration out of range.
pub fn to_json(message: &DynamicMessage) -> Result<serde_json::Value, serde_json::Error> {
    message.serialize_with_options(numbers::Numbers(serde_json::value::Serializer), &JSON)
}

/// Encodes and decodes messages that are known by descriptor alone.
#[derive(Clone, Debug)]
pub struct DynamicCodec {
    output: MessageDescriptor,
}

impl DynamicCodec {
    /// A codec whose answers are messages of the type `output`.
    #[must_use]
    pub fn new(output: MessageDescriptor) -> Self {
        Self { output }
    }
}

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        self.clone()
    }

    fn decoder(&mut self) -> Self::Decoder {
        self.clone()
    }
}

/// Sends messages that are encoded already, byte for byte, and gives answers as they came.
#[derive(Clone, Copy, Debug)]
pub struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

impl Encoder for DynamicCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(
        &mut self,
        message: Self::Item,
        buffer: &mut EncodeBuf<'_>,
    ) -> Result<(), Self::Error> {
        message.encode(buffer).map_err(|_| Status::internal("the request does not fit its buffer"))
    }
}

impl Decoder for DynamicCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Self::Error> {
        DynamicMessage::decode(self.output.clone(), buffer)
            .map(Some)
            .map_err(|_| Status::internal("the tool service's answer does not fit its contract"))
    }
}
