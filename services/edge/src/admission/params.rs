//! Parses the parameters of a message within limits: the number of values, their depth, and the
//! characters of names and strings. `serde_json` limits only the depth: 4 MB of nested arrays
//! become half a gigabyte of values.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, value::RawValue};

use crate::{
    budget::{BodyLimits, BodyPermit},
    truncate::truncate,
};

/// The memory that one parsed value is charged, in bytes: an array of one element allocates space
/// for four of them.
pub(crate) const VALUE_BYTES: usize = 320;

/// How many values are parsed before their memory is charged.
const UNCHARGED_VALUES: usize = 64;

/// The limits of `params`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParamsLimits {
    /// Values, including containers and the values of members.
    pub(crate) values_max: usize,
    /// Levels of arrays and objects, including `params` itself.
    pub(crate) depth_max: usize,
}

impl From<&BodyLimits> for ParamsLimits {
    fn from(limits: &BodyLimits) -> Self {
        let BodyLimits { params_values_max, params_depth_max, .. } = *limits;
        Self { values_max: params_values_max, depth_max: params_depth_max.into() }
    }
}

/// Parses parameters. Their memory is charged to the permit of their body.
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
    /// How many values are charged.
    charged: usize,
    permit: &'a mut BodyPermit,
}

impl Counter<'_> {
    fn count<E: Error>(&mut self) -> Result<(), E> {
        self.values += 1;
        if self.values > self.limits.values_max {
            return Err(E::custom(format!(
                "params contain more than {} values",
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

/// The error when no memory is available for further values.
pub(super) const NO_MEMORY: &str = "no memory is available for the values of params";

/// A value at this depth.
struct Bounded<'a, 'p> {
    counter: &'a mut Counter<'p>,
    depth: usize,
}

impl Bounded<'_, '_> {
    /// The depth of the values inside this one.
    fn inner_depth<E: Error>(&self) -> Result<usize, E> {
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
        let depth = self.inner_depth()?;
        let mut values = Vec::new();
        while let Some(value) =
            sequence.next_element_seed(Bounded { counter: self.counter, depth })?
        {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.inner_depth()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            check_text(&name)?;
            if object.contains_key(&name) {
                // Two parsers could read the message differently.
                return Err(A::Error::custom(format!(
                    "duplicate member {:?} in params",
                    truncate(&name)
                )));
            }
            let value = members.next_value_seed(Bounded { counter: self.counter, depth })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Rejects U+0000, at which C libraries stop: a policy would read another text than they do.
fn check_text<E: Error>(text: &str) -> Result<(), E> {
    if text.as_bytes().contains(&0) {
        return Err(E::custom("params contain the character U+0000"));
    }
    Ok(())
}
