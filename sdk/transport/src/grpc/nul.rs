//! Finds NUL in the strings of an encoded message, without decoding it into memory.

use memchr::memchr;
use prost::{
    DecodeError,
    bytes::Buf as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use prost_reflect::{Kind, MessageDescriptor};

/// The maximum nesting depth of messages, as in prost.
const DEPTH_MAX: usize = 100;

/// The path of the first string field that contains NUL, from the outermost message. C code ends a
/// string at NUL, so it is not a valid character here. Fields of the type `bytes` may contain it.
///
/// # Errors
/// When the bytes are not an encoded message, or contain a group (which proto3 does not have).
pub(super) fn find(
    message: &MessageDescriptor,
    bytes: &[u8],
) -> Result<Option<String>, DecodeError> {
    within(message, bytes, DEPTH_MAX)
}

fn within(
    message: &MessageDescriptor,
    mut bytes: &[u8],
    depth: usize,
) -> Result<Option<String>, DecodeError> {
    // Most messages contain no NUL at all.
    if memchr(0, bytes).is_none() {
        return Ok(None);
    }
    if depth == 0 {
        return Err(error("too deep"));
    }
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes)?;
        match wire_type {
            WireType::LengthDelimited => {}
            WireType::StartGroup | WireType::EndGroup => return Err(error("a group")),
            other => {
                skip_field(other, number, &mut bytes, DecodeContext::default())?;
                continue;
            }
        }
        let length = usize::try_from(decode_varint(&mut bytes)?).unwrap_or(usize::MAX);
        let value = bytes.get(..length).ok_or_else(|| error("a truncated field"))?;
        bytes.advance(length);
        let Some(field) = message.get_field(number) else { continue };
        match field.kind() {
            Kind::String if memchr(0, value).is_some() => return Ok(Some(field.name().to_owned())),
            Kind::Message(inner) => {
                if let Some(found) = within(&inner, value, depth - 1)? {
                    return Ok(Some(format!("{}.{found}", field.name())));
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

#[expect(deprecated, reason = "prost has no other constructor")]
fn error(what: &'static str) -> DecodeError {
    DecodeError::new(what)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::{DescriptorProto, FieldDescriptorProto};

    use super::*;

    fn message(name: &str) -> MessageDescriptor {
        drawbridge_contract::built_in().unwrap().get_message_by_name(name).unwrap()
    }

    /// A message nested to this depth.
    fn nested(depth: usize, name: &str) -> DescriptorProto {
        let outermost = DescriptorProto { name: Some(name.to_owned()), ..Default::default() };
        (0..depth).fold(outermost, |inner, _| DescriptorProto {
            nested_type: vec![inner],
            ..Default::default()
        })
    }

    #[test]
    fn nul_is_found_in_a_string_at_any_depth() {
        let descriptor = message("google.protobuf.DescriptorProto");
        let found =
            |message: &DescriptorProto| find(&descriptor, &message.encode_to_vec()).unwrap();
        assert_eq!(found(&nested(2, "x")), None);
        assert_eq!(found(&nested(2, "\0")).as_deref(), Some("nested_type.nested_type.name"));
        let field =
            FieldDescriptorProto { json_name: Some("a\0b".to_owned()), ..Default::default() };
        let message = DescriptorProto { field: vec![Default::default(), field], ..nested(0, "x") };
        assert_eq!(found(&message).as_deref(), Some("field.json_name"));
    }

    #[test]
    fn bytes_that_are_not_a_message_are_an_error() {
        let descriptor = message("google.protobuf.DescriptorProto");
        let group = [0x0b, 0x0a, 1, 0, 0x0c];
        for bytes in [[0x0a, 5, 0].as_slice(), &[0x0a, 0xff], &[0x00], &group] {
            let bytes = [bytes, &[0]].concat();
            assert!(find(&descriptor, &bytes).is_err(), "{bytes:?}");
        }
        assert!(find(&descriptor, &nested(DEPTH_MAX, "\0").encode_to_vec()).is_err());
    }
}
