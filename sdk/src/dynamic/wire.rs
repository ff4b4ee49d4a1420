//! Messages as they came: bytes, and the type that they are of. What is wanted of one is read from its bytes.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use prost::{
    DecodeError, Message, Name,
    encoding::{self, DecodeContext, decode_key, skip_field},
};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor};

use super::{text::TextForm, to_json};

/// A type of messages, and how its JSON is written.
#[derive(Debug)]
pub struct MessageType {
    descriptor: MessageDescriptor,
    text: Option<TextForm>,
}

impl MessageType {
    /// The type that `descriptor` describes.
    #[must_use]
    pub fn new(descriptor: MessageDescriptor) -> Self {
        Self { text: TextForm::of(&descriptor), descriptor }
    }

    /// What describes it.
    #[must_use]
    pub fn descriptor(&self) -> &MessageDescriptor {
        &self.descriptor
    }
}

/// A message as it came.
#[derive(Clone, Debug)]
pub struct WireMessage {
    of: Arc<MessageType>,
    bytes: Bytes,
}

/// Bytes that are no message of their type.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes do not fit the contract.
    #[error("the message does not fit its contract")]
    Decode(#[from] DecodeError),
    /// A value has no form in JSON, such as a duration out of range.
    #[error("the message has no form in JSON")]
    Json(#[from] serde_json::Error),
}

impl WireMessage {
    /// These bytes, which are a message of this type.
    #[must_use]
    pub fn new(of: Arc<MessageType>, bytes: Bytes) -> Self {
        Self { of, bytes }
    }

    /// What describes it.
    #[must_use]
    pub fn descriptor(&self) -> &MessageDescriptor {
        &self.of.descriptor
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The message, read whole.
    ///
    /// # Errors
    /// When the bytes are no message of this type.
    pub fn decode(&self) -> Result<DynamicMessage, DecodeError> {
        DynamicMessage::decode(self.of.descriptor.clone(), self.bytes.clone())
    }

    /// The message as JSON text.
    ///
    /// # Errors
    /// When the bytes are no message of this type, or it has no form in JSON.
    pub fn json_text(&self) -> Result<String, WireError> {
        let text = self.of.text.as_ref().and_then(|text| text.write(&self.bytes).ok());
        text.map_or_else(|| Ok(self.json()?.to_string()), Ok)
    }

    /// The message as JSON, as [`to_json`] writes it.
    ///
    /// # Errors
    /// As [`Self::json_text`].
    pub fn json(&self) -> Result<serde_json::Value, WireError> {
        Ok(to_json(&self.decode()?)?)
    }

    /// The parts of a message that are of one type of the contract: the message itself, or its fields, by their
    /// numbers.
    ///
    /// # Errors
    /// When the bytes are no message of this type.
    pub fn parts<M: Message + Name + Default>(&self) -> Result<Vec<M>, DecodeError> {
        let full_name = M::full_name();
        let descriptor = self.descriptor();
        if descriptor.full_name() == full_name {
            return Ok(vec![M::decode(self.bytes.clone())?]);
        }
        let mut parts = Vec::new();
        let of_type = descriptor.fields().filter(
            |field| matches!(field.kind(), Kind::Message(message) if message.full_name() == full_name),
        );
        for field in of_type {
            if field.is_list() {
                for part in fields(&self.bytes, field.number())? {
                    parts.push(M::decode(part)?);
                }
            } else if let Some(part) = field_of(&self.bytes, field.number())? {
                parts.push(M::decode(part)?);
            }
        }
        Ok(parts)
    }
}

/// The message in a field that is no list, if it is set. One that comes in parts is put together, as protobuf does.
///
/// # Errors
/// When the bytes are no message.
pub fn field_of(bytes: &Bytes, number: u32) -> Result<Option<Bytes>, DecodeError> {
    let mut found = fields(bytes, number)?;
    if found.len() < 2 {
        return Ok(found.pop());
    }
    let mut whole = BytesMut::new();
    found.iter().for_each(|part| whole.extend_from_slice(part));
    Ok(Some(whole.freeze()))
}

/// What is in a field, as often as it stands there.
fn fields(bytes: &Bytes, number: u32) -> Result<Vec<Bytes>, DecodeError> {
    let (mut rest, mut found) = (bytes.clone(), Vec::new());
    while rest.has_remaining() {
        let (key, wire_type) = decode_key(&mut rest)?;
        if key != number {
            skip_field(wire_type, key, &mut rest, DecodeContext::default())?;
            continue;
        }
        let mut part = Bytes::new();
        encoding::bytes::merge(wire_type, &mut part, &mut rest, DecodeContext::default())?;
        found.push(part);
    }
    Ok(found)
}
