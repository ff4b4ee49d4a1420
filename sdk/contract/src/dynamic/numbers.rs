//! A serializer that writes numbers for JSON readers: 64-bit integers that a double cannot
//! represent exactly as strings, floats with the fewest digits that parse to the same float, and
//! whole numbers without a fraction.

use serde::{
    Serialize, Serializer,
    ser::{Impossible, SerializeMap, SerializeSeq},
};

/// The greatest integer that every JSON reader represents exactly: 2^53 − 1, JavaScript's
/// `MAX_SAFE_INTEGER` (RFC 8259 section 6).
pub const EXACT_INTEGER_MAX: u64 = (1 << 53) - 1;

/// Serializes into `S` with numbers in that form. It supports what a message consists of in JSON,
/// and rejects Rust's structs and enums.
pub(super) struct JsonNumbers<S>(pub(super) S);

/// A value that is serialized by [`JsonNumbers`].
struct Inner<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Serialize for Inner<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(JsonNumbers(serializer))
    }
}

fn unsupported<E: serde::ser::Error>() -> E {
    E::custom("a message has no such value")
}

/// The double with the same shortest decimal text as `value`: 0.1 for `0.1_f32`, not
/// 0.10000000149011612.
pub(super) fn shortest(value: f32) -> f64 {
    let exact = f64::from(value);
    match value.to_string().parse::<f64>() {
        // The text of the greatest float is a double beyond it, which parsers of floats reject.
        Ok(short) if short.abs() <= f64::from(f32::MAX) => short,
        _ => exact,
    }
}

/// Doubles from here on are written with an exponent, and so without a fraction.
const EXPONENT_MIN: f64 = 1e16;

/// The integer that a double equals, if it would be written with a fraction. Minus zero has no
/// integer.
#[expect(clippy::cast_possible_truncation, reason = "it is whole and within the range of i64")]
pub(super) fn whole(value: f64) -> Option<i64> {
    let is_minus_zero = value == 0.0 && value.is_sign_negative();
    (value.fract() == 0.0 && value.abs() < EXPONENT_MIN && !is_minus_zero).then_some(value as i64)
}

macro_rules! forward {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.0.$method(value)
        })*
    };
}

impl<S: Serializer> Serializer for JsonNumbers<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = JsonNumbers<S::SerializeSeq>;
    type SerializeMap = JsonNumbers<S::SerializeMap>;
    type SerializeTuple = Impossible<S::Ok, S::Error>;
    type SerializeTupleStruct = Impossible<S::Ok, S::Error>;
    type SerializeTupleVariant = Impossible<S::Ok, S::Error>;
    type SerializeStruct = Impossible<S::Ok, S::Error>;
    type SerializeStructVariant = Impossible<S::Ok, S::Error>;

    forward! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
    }

    fn serialize_i64(self, value: i64) -> Result<S::Ok, S::Error> {
        match value.unsigned_abs() <= EXACT_INTEGER_MAX {
            true => self.0.serialize_i64(value),
            false => self.0.collect_str(&value),
        }
    }

    fn serialize_u64(self, value: u64) -> Result<S::Ok, S::Error> {
        match value <= EXACT_INTEGER_MAX {
            true => self.0.serialize_u64(value),
            false => self.0.collect_str(&value),
        }
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        self.serialize_f64(shortest(value))
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        match whole(value) {
            Some(integer) => self.0.serialize_i64(integer),
            None => self.0.serialize_f64(value),
        }
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_none()
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.0.serialize_seq(length).map(JsonNumbers)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.0.serialize_map(length).map(JsonNumbers)
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.collect_str(value)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<S::Ok, S::Error> {
        Err(unsupported())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<S::Ok, S::Error> {
        Err(unsupported())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<S::Ok, S::Error> {
        Err(unsupported())
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, S::Error> {
        Err(unsupported())
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Err(unsupported())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        Err(unsupported())
    }

    fn serialize_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        Err(unsupported())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        Err(unsupported())
    }
}

impl<S: SerializeSeq> SerializeSeq for JsonNumbers<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_element(&Inner(value))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

impl<S: SerializeMap> SerializeMap for JsonNumbers<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.0.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_value(&Inner(value))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &impl Serialize) -> String {
        Inner(value).serialize(serde_json::value::Serializer).unwrap().to_string()
    }

    #[test]
    fn an_integer_that_a_double_cannot_represent_is_a_string() {
        for (value, text) in [
            (0, "0"),
            (-9_007_199_254_740_991, "-9007199254740991"),
            (9_007_199_254_740_991, "9007199254740991"),
            (9_007_199_254_740_993, r#""9007199254740993""#),
            (i64::MIN, r#""-9223372036854775808""#),
        ] {
            assert_eq!(written(&value), text);
        }
        assert_eq!(written(&u64::MAX), r#""18446744073709551615""#);
        assert_eq!(written(&vec![vec![u64::MAX]]), r#"[["18446744073709551615"]]"#);
    }

    #[test]
    fn a_float_has_the_fewest_digits_and_a_whole_number_no_fraction() {
        for (value, text) in [
            (0.1_f32, "0.1"),
            (3.0, "3"),
            (-2.5, "-2.5"),
            (16_777_216.0, "16777216"),
            (f32::MAX, "3.4028234663852886e+38"),
        ] {
            assert_eq!(written(&value), text);
        }
        for (value, text) in [
            (0.1_f64, "0.1"),
            (3.0, "3"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (1e300, "1e+300"),
        ] {
            assert_eq!(written(&value), text);
        }
    }
}
