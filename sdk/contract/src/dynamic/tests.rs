use bytes::Bytes;
use proptest::{
    prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest},
    sample,
};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value,
};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, OneofDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{text::TextForm, to_json, wire::field_of};

/// A recursive message type with a field of every type: singular, optional, repeated and in a
/// oneof.
fn everything() -> MessageDescriptor {
    let mut message = DescriptorProto { name: Some("All".to_owned()), ..Default::default() };
    let types =
        (1..=18).filter_map(|number| Type::try_from(number).ok()).filter(|of| *of != Type::Group);
    for (place, of) in types.enumerate() {
        for (form, kind) in ["one", "optional", "list", "member"].into_iter().enumerate() {
            let number = i32::try_from(1 + place * 4 + form).unwrap();
            let mut field = FieldDescriptorProto {
                // Names are not in the order of the numbers.
                name: Some(format!("{kind}_{}", of.as_str_name().to_lowercase())),
                number: Some(number),
                r#type: Some(of.into()),
                label: Some(if kind == "list" { Label::Repeated } else { Label::Optional }.into()),
                type_name: match of {
                    Type::Message => Some(".test.All".to_owned()),
                    Type::Enum => Some(".test.Colour".to_owned()),
                    _ => None,
                },
                ..Default::default()
            };
            match kind {
                "member" => field.oneof_index = Some(0),
                "optional" => {
                    let count = message.oneof_decl.len().max(1);
                    message.oneof_decl.resize(count, oneof("choice"));
                    message.oneof_decl.push(oneof(&format!("_{}", field.name())));
                    field.oneof_index = i32::try_from(count).ok();
                    field.proto3_optional = Some(true);
                }
                _ => {}
            }
            message.field.push(field);
        }
    }
    let value = |(number, name): (i32, &str)| EnumValueDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        ..Default::default()
    };
    let colour = EnumDescriptorProto {
        name: Some("Colour".to_owned()),
        value: [(0, "RED"), (1, "GREEN"), (-1, "NONE")].map(value).to_vec(),
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("test.proto".to_owned()),
        package: Some("test".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![message],
        enum_type: vec![colour],
        ..Default::default()
    };
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_proto(file).unwrap();
    pool.get_message_by_name("test.All").unwrap()
}

fn oneof(name: &str) -> OneofDescriptorProto {
    OneofDescriptorProto { name: Some(name.to_owned()), ..Default::default() }
}

/// A message with random content.
fn random(message: &MessageDescriptor, rng: &mut StdRng, depth: usize) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if rng.random_bool(0.3) && (depth > 0 || !matches!(field.kind(), Kind::Message(_))) {
            let value = match field.is_list() {
                true => Value::List(
                    (0..rng.random_range(0..4)).map(|_| one(&field, rng, depth)).collect(),
                ),
                false => one(&field, rng, depth),
            };
            filled.set_field(&field, value);
        }
    }
    filled
}

fn one(field: &FieldDescriptor, rng: &mut StdRng, depth: usize) -> Value {
    let bits: u64 = if rng.random_bool(0.5) { rng.random_range(0..300) } else { rng.next_u64() };
    let texts = ["", "plain", "\"quoted\" \\ \n\u{1}\u{7f}", "żółw \u{2028}🐢"];
    match field.kind() {
        Kind::Bool => Value::Bool(bits % 2 == 1),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(bits as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(bits as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(bits as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(bits),
        Kind::Float => {
            Value::F32(if bits < 300 { bits as f32 / 10.0 } else { f32::from_bits(bits as u32) })
        }
        Kind::Double => {
            Value::F64(if bits < 300 { bits as f64 / 10.0 } else { f64::from_bits(bits) })
        }
        Kind::String => Value::String(texts[bits as usize % texts.len()].to_owned()),
        Kind::Bytes => {
            Value::Bytes(Bytes::copy_from_slice(&bits.to_le_bytes()[..bits as usize % 9]))
        }
        // One in seven has no name.
        Kind::Enum(_) => {
            Value::EnumNumber(if bits.is_multiple_of(7) { 9 } else { bits as i32 % 3 - 1 })
        }
        Kind::Message(message) => Value::Message(random(&message, rng, depth - 1)),
    }
}

/// A change of a message's bytes: none, or one that only another encoder would produce.
#[derive(Clone, Debug)]
enum Change {
    None,
    Twice,
    Cut(sample::Index),
    Byte(sample::Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => Just(Change::None),
        1 => Just(Change::Twice),
        1 => any::<sample::Index>().prop_map(Change::Cut),
        2 => any::<(sample::Index, u8)>().prop_map(|(at, byte)| Change::Byte(at, byte)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Twice => bytes.extend_from_within(..),
            Self::Cut(at) if !bytes.is_empty() => bytes.truncate(at.index(bytes.len())),
            Self::Byte(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn text_from_the_wire_equals_the_json_of_the_message(seed: u64, change in change()) {
        let message = everything();
        let mut bytes = random(&message, &mut StdRng::seed_from_u64(seed), 3).encode_to_vec();
        change.apply(&mut bytes);
        let form = TextForm::of(&message).unwrap();
        if let Ok(text) = form.write(&bytes) {
            let message = DynamicMessage::decode(message, &*bytes).unwrap();
            prop_assert_eq!(text, to_json(&message).unwrap().to_string());
        }
    }

    #[test]
    fn a_field_in_parts_is_merged(first: Vec<u8>, second: Vec<u8>) {
        let mut bytes = Vec::new();
        for part in [&first, &second] {
            prost::encoding::bytes::encode(7, part, &mut bytes);
            prost::encoding::uint64::encode(8, &300, &mut bytes);
        }
        let whole = field_of(&bytes.into(), 7).unwrap();
        prop_assert_eq!(whole, Some([first, second].concat().into()));
    }
}

#[test]
fn most_messages_are_written_directly_from_the_wire() {
    let (message, mut rng) = (everything(), StdRng::seed_from_u64(1));
    let form = TextForm::of(&message).unwrap();
    let direct = (0..200).filter(|_| {
        // Deeper ones almost always have an enum without a name or a float that is not finite.
        form.write(&random(&message, &mut rng, 0).encode_to_vec()).is_ok()
    });
    assert!(direct.count() > 100);
}

#[test]
fn messages_with_a_special_json_form_are_left_to_to_json() {
    let pool = crate::built_in().unwrap();
    let form = |name: &str| TextForm::of(&pool.get_message_by_name(name).unwrap());
    assert!(form("drawbridge.code.v1.SearchResult").is_some());
    assert!(form("google.protobuf.Struct").is_none());
    assert!(form("google.protobuf.Timestamp").is_none());
}

#[test]
fn a_field_with_the_wrong_wire_type_is_an_error() {
    assert!(field_of(&Bytes::from_static(&[8, 1]), 1).is_err());
    assert_eq!(field_of(&Bytes::from_static(&[8, 1]), 2).unwrap(), None);
}
