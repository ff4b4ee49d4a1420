//! Messages that are known only by their descriptor: their gRPC codec, and their JSON form.

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

/// How messages are serialized as JSON: field names as in the contract, and every field.
/// [`numbers::JsonNumbers`] writes numbers.
const JSON: SerializeOptions = SerializeOptions::new()
    .use_proto_field_name(true)
    .skip_default_fields(false)
    .stringify_64_bit_integers(false);

/// Parses a message from JSON. Unknown fields are rejected. Integers and floats may be numbers or
/// strings, and `null` leaves a field unset (the JSON mapping of protobuf).
///
/// # Errors
/// When the JSON does not match the message type.
pub fn from_json(
    message: MessageDescriptor,
    json: &serde_json::Value,
) -> Result<DynamicMessage, serde_json::Error> {
    DynamicMessage::deserialize_with_options(message, json, &DeserializeOptions::new())
}

/// Serializes a message as JSON: every field without `optional`, set or not. A 64-bit integer
/// beyond ±[`EXACT_INTEGER_MAX`] is a string, any other a number; a `float` has the fewest digits
/// that parse to the same float, and a whole `double` has no fraction.
///
/// # Errors
/// When a well-known type has a value without a JSON form, such as a duration out of range.
pub fn to_json(message: &DynamicMessage) -> Result<serde_json::Value, serde_json::Error> {
    message.serialize_with_options(numbers::JsonNumbers(serde_json::value::Serializer), &JSON)
}

/// Encodes and decodes messages that are known only by their descriptor.
#[derive(Clone, Debug)]
pub struct DynamicCodec {
    output: MessageDescriptor,
}

impl DynamicCodec {
    /// A codec whose responses are messages of the type `output`.
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

/// Sends encoded messages byte for byte, and returns responses undecoded.
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
        message.encode(buffer).map_err(|_| Status::internal("the request exceeds its buffer"))
    }
}

impl Decoder for DynamicCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Self::Error> {
        DynamicMessage::decode(self.output.clone(), buffer).map(Some).map_err(|_| {
            Status::internal("the tool service's response does not match its contract")
        })
    }
}
