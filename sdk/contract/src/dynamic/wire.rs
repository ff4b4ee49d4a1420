//! Encoded messages with their type. Parts are read from the bytes on demand.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use prost::{
    DecodeError, Message, Name,
    encoding::{self, DecodeContext, decode_key, skip_field},
};
use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::{text::TextForm, to_json};

/// A message type, with the plan of its JSON form.
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

    /// Its descriptor.
    #[must_use]
    pub fn descriptor(&self) -> &MessageDescriptor {
        &self.descriptor
    }
}

/// An encoded message.
#[derive(Clone, Debug)]
pub struct WireMessage {
    message_type: Arc<MessageType>,
    bytes: Bytes,
}

/// Bytes are not a valid message of their type.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes do not match the contract.
    #[error("the message does not match its contract")]
    Decode(#[from] DecodeError),
    /// A value has no JSON form, such as a duration out of range.
    #[error("the message has no JSON form")]
    Json(#[from] serde_json::Error),
}

impl WireMessage {
    /// These bytes as a message of this type.
    #[must_use]
    pub fn new(message_type: Arc<MessageType>, bytes: Bytes) -> Self {
        Self { message_type, bytes }
    }

    /// Its descriptor.
    #[must_use]
    pub fn descriptor(&self) -> &MessageDescriptor {
        &self.message_type.descriptor
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Decodes the whole message.
    ///
    /// # Errors
    /// When the bytes are not a message of this type.
    pub fn decode(&self) -> Result<DynamicMessage, DecodeError> {
        DynamicMessage::decode(self.message_type.descriptor.clone(), self.bytes.clone())
    }

    /// The message as JSON text.
    ///
    /// # Errors
    /// When the bytes are not a message of this type, or it has no JSON form.
    pub fn json_text(&self) -> Result<String, WireError> {
        let text = self.message_type.text.as_ref().and_then(|text| text.write(&self.bytes).ok());
        text.map_or_else(|| Ok(self.json()?.to_string()), Ok)
    }

    /// The message as JSON, as [`to_json`] writes it.
    ///
    /// # Errors
    /// As [`Self::json_text`].
    pub fn json(&self) -> Result<serde_json::Value, WireError> {
        Ok(to_json(&self.decode()?)?)
    }

    /// The parts of a message that are of one type of the contract: the message itself, or its
    /// fields, by their numbers.
    ///
    /// # Errors
    /// When the bytes are not a message of this type.
    pub fn parts<M: Message + Name + Default>(&self) -> Result<Vec<M>, DecodeError> {
        let full_name = M::full_name();
        let descriptor = self.descriptor();
        if descriptor.full_name() == full_name {
            return Ok(vec![M::decode(self.bytes.clone())?]);
        }
        let mut parts = Vec::new();
        let of_type = descriptor.fields().filter(|field| {
            field.kind().as_message().is_some_and(|message| message.full_name() == full_name)
        });
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

/// The message in a singular field, if it is set. Several occurrences are merged, as protobuf
/// requires.
///
/// # Errors
/// When the bytes are not a message.
pub fn field_of(bytes: &Bytes, number: u32) -> Result<Option<Bytes>, DecodeError> {
    let mut found = fields(bytes, number)?;
    if found.len() < 2 {
        return Ok(found.pop());
    }
    let mut whole = BytesMut::new();
    found.iter().for_each(|part| whole.extend_from_slice(part));
    Ok(Some(whole.freeze()))
}

/// All occurrences of a field.
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
