//! JSON in and out.

use jaq_json::{Map, Num, Val};
use serde_json::{Number, Value as Json};

use super::{DEPTH_MAX, Value};
use crate::traffic::transform::jq::meter::{WHOLE, charge_bytes};

/// Whole numbers of floating point are exact up to here.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Why a value cannot go in or come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("is larger than {} bytes", WHOLE.value_bytes)]
    Large,
    #[error("nests deeper than {DEPTH_MAX}")]
    Deep,
}

impl Value {
    /// Takes a value of at most so many bytes in. This is no work of the program's.
    pub(in crate::traffic::transform::jq) fn read(
        json: &Json,
        bytes_max: usize,
    ) -> Result<Self, Unfit> {
        read(json, &mut Room(bytes_max), DEPTH_MAX)
    }

    /// Gives a value of at most so many bytes out.
    pub(in crate::traffic::transform::jq) fn write(&self, bytes_max: usize) -> Result<Json, Unfit> {
        write(&self.val, &mut Room(bytes_max))
    }

    /// Its JSON as text.
    pub(in crate::traffic::transform::jq) fn to_text(&self) -> String {
        self.weigh();
        // All of it was paid for, so it needs no other bound.
        write(&self.val, &mut Room(usize::MAX)).unwrap_or_default().to_string()
    }

    /// JSON from text.
    pub(in crate::traffic::transform::jq) fn from_text(text: &str) -> Option<Self> {
        charge_bytes(text.len().saturating_mul(16));
        read(&serde_json::from_str(text).ok()?, &mut Room(usize::MAX), DEPTH_MAX).ok()
    }
}

/// For how many bytes there is room.
struct Room(usize);

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), Unfit> {
        self.0 = self.0.checked_sub(bytes).ok_or(Unfit::Large)?;
        Ok(())
    }
}

fn read(json: &Json, room: &mut Room, depth: u16) -> Result<Value, Unfit> {
    let below = || depth.checked_sub(1).ok_or(Unfit::Deep);
    let mut deepest = 0;
    Ok(match json {
        Json::Null => plain(Val::Null, 4, room)?,
        Json::Bool(value) => plain(Val::Bool(*value), 4, room)?,
        Json::Number(value) => plain(Val::Num(number(value)), 4, room)?,
        Json::String(text) => {
            room.take(text.len() + 2)?;
            Value::plain(Val::utf8_str(text.clone()))
        }
        Json::Array(values) => {
            room.take(2)?;
            let below = below()?;
            let values = values.iter().map(|value| {
                let value = read(value, room, below)?;
                deepest = deepest.max(value.depth);
                Ok(value.val)
            });
            let values = values.collect::<Result<Vec<_>, _>>()?;
            Value { val: Val::Arr(values.into()), depth: deepest + 1 }
        }
        Json::Object(entries) => {
            room.take(2)?;
            let below = below()?;
            let entries = entries.iter().map(|(key, value)| {
                room.take(key.len() + 3)?;
                let value = read(value, room, below)?;
                deepest = deepest.max(value.depth);
                Ok((Val::utf8_str(key.clone()), value.val))
            });
            let entries = entries.collect::<Result<Map, _>>()?;
            Value { val: Val::obj(entries), depth: deepest + 1 }
        }
    })
}

fn plain(val: Val, bytes: usize, room: &mut Room) -> Result<Value, Unfit> {
    room.take(bytes)?;
    Ok(Value::plain(val))
}

fn number(number: &Number) -> Num {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => Num::from_integral(value),
        (None, Some(value)) => Num::from_integral(value),
        (None, None) => Num::Float(number.as_f64().unwrap_or(f64::NAN)),
    }
}

fn write(val: &Val, room: &mut Room) -> Result<Json, Unfit> {
    Ok(match val {
        Val::Null => {
            room.take(4)?;
            Json::Null
        }
        Val::Bool(value) => {
            room.take(4)?;
            Json::Bool(*value)
        }
        Val::Num(value) => {
            room.take(4)?;
            written(value)
        }
        Val::BStr(text) | Val::TStr(text) => {
            room.take(text.len() + 2)?;
            Json::String(String::from_utf8_lossy(text).into_owned())
        }
        Val::Arr(values) => {
            room.take(2)?;
            Json::Array(values.iter().map(|value| write(value, room)).collect::<Result<_, _>>()?)
        }
        Val::Obj(entries) => {
            room.take(2)?;
            let entries = entries.iter().map(|(key, value)| {
                let key = match key {
                    Val::TStr(key) => String::from_utf8_lossy(key).into_owned(),
                    _ => String::new(),
                };
                room.take(key.len() + 3)?;
                Ok((key, write(value, room)?))
            });
            Json::Object(entries.collect::<Result<_, _>>()?)
        }
    })
}

/// A number in JSON. Whole numbers are integers, as schemas want them; what JSON has no form for is null, as in jq.
fn written(number: &Num) -> Json {
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within the exact range")]
    let float = |value: f64| match value {
        value if value.fract() == 0.0 && value.abs() <= EXACT_MAX => Json::from(value as i64),
        value => Number::from_f64(value).map_or(Json::Null, Json::Number),
    };
    match number {
        Num::Int(value) => Json::from(*value),
        Num::Float(value) => float(*value),
        Num::BigInt(value) => value.to_string().parse::<u64>().map_or(Json::Null, Json::from),
        Num::Dec(text) => text.parse().map_or(Json::Null, float),
    }
}
