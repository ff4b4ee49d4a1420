//! Writes the bytes of a message directly as JSON text, the form for clients that read text.
//!
//! It writes what [`super::to_json`] does, byte for byte. It leaves to `to_json` what it does not
//! support (maps, well-known types, groups), and bytes that need more than one step to decode (a
//! singular message in parts, two members of one oneof).

use std::{collections::HashMap, fmt::Write as _, str};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Syntax};

use super::numbers::{EXACT_INTEGER_MAX, shortest, whole};

/// The maximum nesting depth of messages, as in prost.
const DEPTH_MAX: usize = 100;

/// How messages of one type, and of the types within it, are written.
#[derive(Debug)]
pub(super) struct TextForm {
    messages: Vec<MessageForm>,
}

#[derive(Debug, Default)]
struct MessageForm {
    /// Sorted by number.
    fields: Vec<FieldForm>,
}

#[derive(Debug)]
struct FieldForm {
    number: u32,
    /// `"name":`, as written.
    key: String,
    kind: Scalar,
    is_list: bool,
    has_presence: bool,
    /// The oneof that it is a member of, as an index in the message.
    oneof: Option<usize>,
}

#[derive(Debug)]
enum Scalar {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    Text,
    Bytes,
    /// The names of its values, as JSON.
    Enum(HashMap<i32, String>),
    /// A message at this index of the form.
    Message(usize),
}

/// The bytes are not supported here, and left to `to_json`.
#[derive(Debug)]
pub(super) struct Unsupported;

/// A field's value, as encoded on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

impl TextForm {
    /// The form of a message type. `None` when a message within it is not supported.
    pub(super) fn of(message: &MessageDescriptor) -> Option<Self> {
        let (mut form, mut indices) = (Self { messages: Vec::new() }, HashMap::new());
        form.add(message, &mut indices)?;
        Some(form)
    }

    fn add(
        &mut self,
        message: &MessageDescriptor,
        indices: &mut HashMap<String, usize>,
    ) -> Option<usize> {
        let name = message.full_name();
        if let Some(index) = indices.get(name) {
            return Some(*index);
        }
        let is_plain = message.parent_file().syntax() == Syntax::Proto3
            && !name.starts_with("google.protobuf.");
        if !is_plain {
            return None;
        }
        let index = self.messages.len();
        indices.insert(name.to_owned(), index);
        self.messages.push(MessageForm::default());
        let fields = message.fields().map(|field| {
            let kind = self.scalar(&field, indices)?;
            let key = format!("{}:", serde_json::to_string(field.name()).ok()?);
            let oneof = field.containing_oneof();
            let oneof = oneof.and_then(|oneof| message.oneofs().position(|other| other == oneof));
            let (is_list, has_presence) = (field.is_list(), field.supports_presence());
            Some(FieldForm { number: field.number(), key, kind, is_list, has_presence, oneof })
        });
        self.messages[index].fields = fields.collect::<Option<_>>()?;
        Some(index)
    }

    fn scalar(
        &mut self,
        field: &FieldDescriptor,
        indices: &mut HashMap<String, usize>,
    ) -> Option<Scalar> {
        Some(match field.kind() {
            _ if field.is_map() || field.is_group() => return None,
            Kind::Bool => Scalar::Bool,
            Kind::Int32 => Scalar::Int32,
            Kind::Int64 => Scalar::Int64,
            Kind::Uint32 => Scalar::Uint32,
            Kind::Uint64 => Scalar::Uint64,
            Kind::Sint32 => Scalar::Sint32,
            Kind::Sint64 => Scalar::Sint64,
            Kind::Fixed32 => Scalar::Fixed32,
            Kind::Fixed64 => Scalar::Fixed64,
            Kind::Sfixed32 => Scalar::Sfixed32,
            Kind::Sfixed64 => Scalar::Sfixed64,
            Kind::Float => Scalar::Float,
            Kind::Double => Scalar::Double,
            Kind::String => Scalar::Text,
            Kind::Bytes => Scalar::Bytes,
            Kind::Enum(values) => Scalar::Enum(names(&values)?),
            Kind::Message(message) => Scalar::Message(self.add(&message, indices)?),
        })
    }

    /// Writes a message.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<String, Unsupported> {
        let mut text = String::with_capacity(bytes.len() * 2 + 64);
        self.message(0, bytes, &mut text, DEPTH_MAX)?;
        Ok(text)
    }

    fn message(
        &self,
        index: usize,
        bytes: &[u8],
        text: &mut String,
        depth: usize,
    ) -> Result<(), Unsupported> {
        let form = &self.messages[index];
        let found = form.find(bytes)?;
        let depth = depth.checked_sub(1).ok_or(Unsupported)?;
        text.push('{');
        let (mut rest, mut is_first) = (&found[..], true);
        for (slot, field) in form.fields.iter().enumerate() {
            let count = rest.iter().take_while(|(of, _)| *of == slot).count();
            let (own, after) = rest.split_at(count);
            rest = after;
            if own.is_empty() && field.has_presence {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                text.push(',');
            }
            text.push_str(&field.key);
            match (field.is_list, own) {
                (true, _) => self.list(field, own, text, depth)?,
                (false, []) => field.kind.write_default(text)?,
                (false, [(_, value)]) => self.value(&field.kind, *value, text, depth)?,
                // A message in parts must be merged; of several values the last is used, but all of
                // them must be valid.
                (false, _) => return Err(Unsupported),
            }
        }
        text.push('}');
        Ok(())
    }

    fn list(
        &self,
        field: &FieldForm,
        found: &[(usize, Wire<'_>)],
        text: &mut String,
        depth: usize,
    ) -> Result<(), Unsupported> {
        text.push('[');
        let mut is_first = true;
        for (_, value) in found {
            let mut write = |value| {
                if !std::mem::take(&mut is_first) {
                    text.push(',');
                }
                self.value(&field.kind, value, text, depth)
            };
            match (*value, field.kind.packed()) {
                (Wire::Bytes(mut packed), Some(wire_type)) => {
                    while !packed.is_empty() {
                        write(read(wire_type, &mut packed)?)?;
                    }
                }
                (value, _) => write(value)?,
            }
        }
        text.push(']');
        Ok(())
    }

    fn value(
        &self,
        kind: &Scalar,
        value: Wire<'_>,
        text: &mut String,
        depth: usize,
    ) -> Result<(), Unsupported> {
        match (kind, value) {
            (Scalar::Message(index), Wire::Bytes(bytes)) => {
                self.message(*index, bytes, text, depth)
            }
            _ => kind.write(value, text),
        }
    }
}

impl MessageForm {
    /// The values in a message, each with the index of its field, sorted by that index.
    fn find<'a>(&self, mut bytes: &'a [u8]) -> Result<Vec<(usize, Wire<'a>)>, Unsupported> {
        let (mut found, mut is_sorted) = (Vec::with_capacity(self.fields.len()), true);
        let mut members: Vec<(usize, usize)> = Vec::new();
        while !bytes.is_empty() {
            let (number, wire_type) = decode_key(&mut bytes).map_err(|_| Unsupported)?;
            let value = read(wire_type, &mut bytes)?;
            // An unknown field is not shown.
            let Ok(slot) = self.fields.binary_search_by_key(&number, |field| field.number) else {
                continue;
            };
            if let Some(oneof) = self.fields[slot].oneof {
                match members.iter().find(|(of, _)| *of == oneof) {
                    Some((_, other)) if *other != slot => return Err(Unsupported),
                    Some(_) => {}
                    None => members.push((oneof, slot)),
                }
            }
            is_sorted &= found.last().is_none_or(|(last, _)| *last <= slot);
            found.push((slot, value));
        }
        if !is_sorted {
            found.sort_by_key(|(slot, _)| *slot);
        }
        Ok(found)
    }
}

/// Reads one value.
fn read<'a>(wire_type: WireType, bytes: &mut &'a [u8]) -> Result<Wire<'a>, Unsupported> {
    let mut take = |count: usize| {
        let (taken, rest) = bytes.split_at_checked(count).ok_or(Unsupported)?;
        *bytes = rest;
        Ok(taken)
    };
    let wrong = |_| Unsupported;
    match wire_type {
        WireType::Varint => decode_varint(bytes).map(Wire::Varint).map_err(|_| Unsupported),
        WireType::ThirtyTwoBit => {
            Ok(Wire::Fixed32(u32::from_le_bytes(take(4)?.try_into().map_err(wrong)?)))
        }
        WireType::SixtyFourBit => {
            Ok(Wire::Fixed64(u64::from_le_bytes(take(8)?.try_into().map_err(wrong)?)))
        }
        WireType::LengthDelimited => {
            let length = decode_varint(bytes).map_err(|_| Unsupported)?;
            let (taken, rest) = bytes
                .split_at_checked(usize::try_from(length).map_err(|_| Unsupported)?)
                .ok_or(Unsupported)?;
            *bytes = rest;
            Ok(Wire::Bytes(taken))
        }
        WireType::StartGroup | WireType::EndGroup => Err(Unsupported),
    }
}

fn names(values: &EnumDescriptor) -> Option<HashMap<i32, String>> {
    if values.full_name() == "google.protobuf.NullValue" {
        return None;
    }
    let mut names = HashMap::new();
    for value in values.values() {
        // Of several aliases, the one that the descriptor finds.
        let value = values.get_value(value.number())?;
        names.insert(value.number(), serde_json::to_string(value.name()).ok()?);
    }
    Some(names)
}

impl Scalar {
    /// The wire type of values in a packed list, if the type can be packed.
    fn packed(&self) -> Option<WireType> {
        match self {
            Self::Text | Self::Bytes | Self::Message(_) => None,
            Self::Fixed32 | Self::Sfixed32 | Self::Float => Some(WireType::ThirtyTwoBit),
            Self::Fixed64 | Self::Sfixed64 | Self::Double => Some(WireType::SixtyFourBit),
            _ => Some(WireType::Varint),
        }
    }

    /// Writes the default of an absent field.
    fn write_default(&self, text: &mut String) -> Result<(), Unsupported> {
        match self.packed() {
            Some(WireType::ThirtyTwoBit) => self.write(Wire::Fixed32(0), text),
            Some(WireType::SixtyFourBit) => self.write(Wire::Fixed64(0), text),
            Some(_) => self.write(Wire::Varint(0), text),
            None => self.write(Wire::Bytes(b""), text),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "as protobuf reads them"
    )]
    fn write(&self, value: Wire<'_>, text: &mut String) -> Result<(), Unsupported> {
        match (self, value) {
            (Self::Bool, Wire::Varint(value)) => {
                text.push_str(if value == 0 { "false" } else { "true" });
            }
            (Self::Int32, Wire::Varint(value)) => integer(i64::from(value as i32), text),
            (Self::Int64, Wire::Varint(value)) => integer(value as i64, text),
            (Self::Uint32, Wire::Varint(value)) => integer(i64::from(value as u32), text),
            (Self::Uint64, Wire::Varint(value)) => unsigned(value, text),
            (Self::Sint32, Wire::Varint(value)) => {
                let value = value as u32;
                integer(i64::from((value >> 1) as i32 ^ -((value & 1) as i32)), text);
            }
            (Self::Sint64, Wire::Varint(value)) => {
                integer((value >> 1) as i64 ^ -((value & 1) as i64), text);
            }
            (Self::Fixed32, Wire::Fixed32(value)) => integer(i64::from(value), text),
            (Self::Sfixed32, Wire::Fixed32(value)) => integer(i64::from(value as i32), text),
            (Self::Fixed64, Wire::Fixed64(value)) => unsigned(value, text),
            (Self::Sfixed64, Wire::Fixed64(value)) => integer(value as i64, text),
            (Self::Float, Wire::Fixed32(value)) => {
                let value = f32::from_bits(value);
                double(if value.is_finite() { shortest(value) } else { f64::NAN }, text)?;
            }
            (Self::Double, Wire::Fixed64(value)) => double(f64::from_bits(value), text)?,
            (Self::Text, Wire::Bytes(bytes)) => {
                quoted(str::from_utf8(bytes).map_err(|_| Unsupported)?, text)?;
            }
            (Self::Bytes, Wire::Bytes(bytes)) => {
                text.push('"');
                BASE64.encode_string(bytes, text);
                text.push('"');
            }
            (Self::Enum(names), Wire::Varint(value)) => {
                text.push_str(names.get(&(value as i32)).ok_or(Unsupported)?);
            }
            _ => return Err(Unsupported),
        }
        Ok(())
    }
}

/// Writes a text as a JSON string.
fn quoted(value: &str, text: &mut String) -> Result<(), Unsupported> {
    if value.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        let quoted = serde_json::to_string(value).map_err(|_| Unsupported)?;
        text.push_str(&quoted);
    } else {
        text.push('"');
        text.push_str(value);
        text.push('"');
    }
    Ok(())
}

fn integer(value: i64, text: &mut String) {
    let quote = if value.unsigned_abs() <= EXACT_INTEGER_MAX { "" } else { "\"" };
    // INVARIANT: writing to a string does not fail.
    let _ = write!(text, "{quote}{value}{quote}");
}

fn unsigned(value: u64, text: &mut String) {
    let quote = if value <= EXACT_INTEGER_MAX { "" } else { "\"" };
    let _ = write!(text, "{quote}{value}{quote}");
}

fn double(value: f64, text: &mut String) -> Result<(), Unsupported> {
    match whole(value) {
        // JSON cannot express numbers that are not finite.
        _ if !value.is_finite() => return Err(Unsupported),
        Some(integer) => _ = write!(text, "{integer}"),
        None => text.push_str(&serde_json::to_string(&value).map_err(|_| Unsupported)?),
    }
    Ok(())
}
