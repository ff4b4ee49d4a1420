//! Generates messages of any type.

use prost::Message as _;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage as _, Value,
};
use prost_types::{Any, Duration, FieldMask, ListValue, Struct, Timestamp, value::Kind as Json};

/// The numbers that decide all choices. After the last one, every choice is the simplest.
#[derive(Clone, Debug)]
pub(crate) struct Tape {
    numbers: std::vec::IntoIter<u64>,
    /// Whether all floats are finite. NaN does not equal itself, and has no form in a wrapper.
    pub(crate) only_numbers: bool,
}

impl Tape {
    pub(crate) fn new(numbers: Vec<u64>) -> Self {
        Self { numbers: numbers.into_iter(), only_numbers: false }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.numbers.next().unwrap_or_default()
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    pub(super) fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn double(&mut self) -> f64 {
        let any = f64::from_bits(self.next());
        let double =
            self.pick(&[0.0, any, -0.0, 1.0, f64::MAX, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY]);
        if self.only_numbers && !double.is_finite() { 0.1 } else { double }
    }

    fn float(&mut self) -> f32 {
        let any = f32::from_bits(u32::try_from(self.next() >> 32).unwrap());
        let float =
            self.pick(&[0.0, any, 0.1, f32::MAX, f32::MIN, f32::MIN_POSITIVE, f32::NEG_INFINITY]);
        if self.only_numbers && !float.is_finite() { 0.3 } else { float }
    }

    fn signed(&mut self) -> i64 {
        let any = self.next().cast_signed();
        self.pick(&[0, any, 1, -1, i64::MAX, i64::MIN])
    }

    fn signed_32(&mut self) -> i32 {
        self.pick(&[0, 1, -1, 7, i32::MAX, i32::MIN])
    }

    fn text(&mut self) -> String {
        self.pick(&["", "a", "ä\u{10ffff}\0\"\\", "NaN", "5", "null", "a.b0"]).to_owned()
    }
}

pub(crate) fn message(
    descriptor: &MessageDescriptor,
    tape: &mut Tape,
    depth: usize,
) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    if well_known(&mut message, tape, depth) {
        return message;
    }
    for field in descriptor.fields() {
        let is_message = matches!(field.kind(), Kind::Message(_));
        if tape.below(3) == 0 || (depth > 2 && is_message) {
            continue;
        }
        let value = field_value(&field, tape, depth);
        message.set_field(&field, value);
    }
    message
}

fn field_value(field: &FieldDescriptor, tape: &mut Tape, depth: usize) -> Value {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let (key, value) =
                (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            let entries =
                (0..tape.below(3)).map(|_| (map_key(&key, tape), value_of(&value, tape, depth)));
            Value::Map(entries.collect())
        }
        kind if field.is_list() => {
            Value::List((0..tape.below(3)).map(|_| value_of(&kind, tape, depth)).collect())
        }
        kind => value_of(&kind, tape, depth),
    }
}

fn value_of(kind: &Kind, tape: &mut Tape, depth: usize) -> Value {
    match kind {
        Kind::Double => Value::F64(tape.double()),
        Kind::Float => Value::F32(tape.float()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(tape.signed_32()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(tape.signed()),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(tape.signed_32().cast_unsigned()),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(tape.signed().cast_unsigned()),
        Kind::Bool => Value::Bool(tape.below(2) == 1),
        Kind::String => Value::String(tape.text()),
        Kind::Bytes => Value::Bytes(tape.text().into_bytes().into()),
        Kind::Enum(descriptor) => Value::EnumNumber(enum_number(descriptor, tape)),
        Kind::Message(descriptor) => Value::Message(message(descriptor, tape, depth + 1)),
    }
}

/// A known or unknown value.
fn enum_number(descriptor: &EnumDescriptor, tape: &mut Tape) -> i32 {
    if descriptor.full_name() == "google.protobuf.NullValue" {
        return 0;
    }
    let mut numbers: Vec<_> = descriptor.values().map(|value| value.number()).collect();
    numbers.extend([99, i32::MIN]);
    tape.pick(&numbers)
}

fn map_key(kind: &Kind, tape: &mut Tape) -> MapKey {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(tape.signed_32()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(tape.signed()),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(tape.signed_32().cast_unsigned()),
        Kind::Uint64 | Kind::Fixed64 => MapKey::U64(tape.signed().cast_unsigned()),
        Kind::Bool => MapKey::Bool(tape.below(2) == 1),
        _ => MapKey::String(tape.text()),
    }
}

/// Fills a message whose JSON form is not an object of its fields, with values that have such a
/// form: no times beyond the year 9999, no NaN in `Value`, and no `Any` of an unknown type.
fn well_known(message: &mut DynamicMessage, tape: &mut Tape, depth: usize) -> bool {
    let full_name = message.descriptor().full_name().to_owned();
    let transcoded = match full_name.strip_prefix("google.protobuf.") {
        Some("Timestamp") => {
            let seconds = tape.pick(&[0, -62_135_596_800, 253_402_300_799, 1_700_000_000, -1]);
            message.transcode_from(&Timestamp {
                seconds,
                nanos: tape.pick(&[0, 1, 999_999_999, 500_000_000]),
            })
        }
        Some("Duration") => {
            let sign = tape.pick(&[1, -1]);
            let seconds = i64::from(sign) * tape.pick(&[0, 1, 315_576_000_000]);
            message.transcode_from(&Duration {
                seconds,
                nanos: sign * tape.pick(&[0, 1, 999_999_999]),
            })
        }
        Some("FieldMask") => {
            let paths =
                (0..tape.below(3)).map(|_| tape.pick(&["a", "foo_bar", "a.b_c.d"]).to_owned());
            message.transcode_from(&FieldMask { paths: paths.collect() })
        }
        Some("Struct") => message.transcode_from(&json_struct(tape, depth)),
        Some("ListValue") => message.transcode_from(&json_list(tape, depth)),
        Some("Value") => message.transcode_from(&json(tape, depth)),
        Some("Any") => message.transcode_from(&any(message, tape)),
        _ => return false,
    };
    transcoded.unwrap();
    true
}

fn any(message: &DynamicMessage, tape: &mut Tape) -> Any {
    let inner = tape.pick(&["google.protobuf.Duration", "drawbridge.test.v1.Everything.Nested"]);
    let descriptor = message.descriptor().parent_pool().get_message_by_name(inner).unwrap();
    let value = self::message(&descriptor, tape, 2).encode_to_vec();
    Any { type_url: format!("type.googleapis.com/{inner}"), value }
}

fn json(tape: &mut Tape, depth: usize) -> prost_types::Value {
    let kind = match tape.below(if depth > 2 { 4 } else { 6 }) {
        0 => Json::NullValue(0),
        1 => Json::BoolValue(tape.below(2) == 1),
        2 => Json::NumberValue(tape.pick(&[0.0, 1.5, -1e300, 9_007_199_254_740_993.0])),
        3 => Json::StringValue(tape.text()),
        4 => Json::ListValue(json_list(tape, depth + 1)),
        _ => Json::StructValue(json_struct(tape, depth + 1)),
    };
    prost_types::Value { kind: Some(kind) }
}

fn json_list(tape: &mut Tape, depth: usize) -> ListValue {
    ListValue { values: (0..tape.below(3)).map(|_| json(tape, depth + 1)).collect() }
}

fn json_struct(tape: &mut Tape, depth: usize) -> Struct {
    Struct { fields: (0..tape.below(3)).map(|_| (tape.text(), json(tape, depth + 1))).collect() }
}
