//! The parameters of a message, parsed within bounds: how many values they hold, how deep they nest, and which names and
//! texts they may have. `serde_json` alone bounds only the depth: 4 MB of nested arrays become half a gigabyte of values.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, value::RawValue};

use super::body::BodyPermit;

/// The memory of one parsed value, in bytes: an array of one element allocates four of them. Measured by
/// `the_memory_of_parsed_values_stays_within_what_is_charged`.
pub(crate) const VALUE_BYTES: usize = 320;

/// How many values are parsed before their memory is charged.
const UNCHARGED_VALUES: usize = 64;

/// What `params` may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParamsLimits {
    /// Values, the containers and the members' values among them.
    pub(crate) values_max: usize,
    /// Levels of arrays and objects, `params` itself among them.
    pub(crate) depth_max: usize,
}

/// Parses parameters. What they take of memory is charged to the body that they came in.
pub(super) fn parse(
    raw: &RawValue,
    limits: ParamsLimits,
    permit: &mut BodyPermit,
) -> Result<Value, serde_json::Error> {
    let mut counter = Counter { limits, values: 0, charged: UNCHARGED_VALUES, permit };
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    Bounded { counter: &mut counter, depth: 0 }.deserialize(&mut deserializer)
}

struct Counter<'a> {
    limits: ParamsLimits,
    values: usize,
    /// How many values are paid for.
    charged: usize,
    permit: &'a mut BodyPermit,
}

impl Counter<'_> {
    fn count<E: Error>(&mut self) -> Result<(), E> {
        self.values += 1;
        if self.values > self.limits.values_max {
            return Err(E::custom(format!(
                "params hold more than {} values",
                self.limits.values_max
            )));
        }
        if self.values > self.charged {
            let more = self.charged;
            if !self.permit.try_grow(more * VALUE_BYTES) {
                return Err(E::custom(NO_MEMORY));
            }
            self.charged += more;
        }
        Ok(())
    }
}

/// Stands in the error of a message for which there is no memory now.
pub(super) const NO_MEMORY: &str = "too many values are in memory now";

/// One value, some levels down.
struct Bounded<'a, 'p> {
    counter: &'a mut Counter<'p>,
    depth: usize,
}

impl Bounded<'_, '_> {
    /// The level below, where there may be one.
    fn below<E: Error>(&self) -> Result<usize, E> {
        let max = self.counter.limits.depth_max;
        if self.depth >= max {
            return Err(E::custom(format!("params nest deeper than {max} levels")));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.counter.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number is not finite"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        check_text(text)?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        check_text(&text)?;
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let depth = self.below()?;
        let mut values = Vec::new();
        while let Some(value) =
            sequence.next_element_seed(Bounded { counter: self.counter, depth })?
        {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.below()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            check_text(&name)?;
            if object.contains_key(&name) {
                // Two readers could take the message for two things.
                return Err(A::Error::custom(format!(
                    "duplicate member {:?} in params",
                    cut(&name)
                )));
            }
            let value = members.next_value_seed(Bounded { counter: self.counter, depth })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// C libraries stop at U+0000: what a policy has read is then not what is searched for.
fn check_text<E: Error>(text: &str) -> Result<(), E> {
    if text.as_bytes().contains(&0) {
        return Err(E::custom("params hold the character U+0000"));
    }
    Ok(())
}

/// The beginning of a text that a caller wrote, for logs, spans and errors.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// How much of a text that a caller wrote goes into a log line, span or error, in bytes.
const TEXT_BYTES_MAX: usize = 128;
