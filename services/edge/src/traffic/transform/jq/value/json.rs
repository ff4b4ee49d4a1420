//! Conversion from and to JSON.

use jaq_json::{Map, Num, Val};
use serde_json::{Number, Value as Json};

use super::{DEPTH_MAX, JqValue};
use crate::traffic::transform::jq::meter::{FULL, charge_bytes};

/// The largest integer up to which floats are exact.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Why a value cannot be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("exceeds {} bytes", FULL.value_bytes)]
    TooLarge,
    #[error("nests deeper than {DEPTH_MAX}")]
    TooDeep,
}

impl JqValue {
    /// Converts a JSON value of at most `bytes_max` bytes. Not charged to the run.
    pub(in crate::traffic::transform::jq) fn read(
        json: &Json,
        bytes_max: usize,
    ) -> Result<Self, ValueError> {
        read(json, &mut ByteBudget(bytes_max), DEPTH_MAX)
    }

    /// Converts to a JSON value of at most `bytes_max` bytes.
    pub(in crate::traffic::transform::jq) fn write(
        &self,
        bytes_max: usize,
    ) -> Result<Json, ValueError> {
        write(&self.val, &mut ByteBudget(bytes_max))
    }

    /// The value as JSON text.
    pub(in crate::traffic::transform::jq) fn to_text(&self) -> String {
        self.charge_walk();
        // The walk was charged, so no other bound is needed.
        write(&self.val, &mut ByteBudget(usize::MAX)).unwrap_or_default().to_string()
    }

    /// Parses JSON text.
    pub(in crate::traffic::transform::jq) fn from_text(text: &str) -> Option<Self> {
        charge_bytes(text.len().saturating_mul(16));
        read(&serde_json::from_str(text).ok()?, &mut ByteBudget(usize::MAX), DEPTH_MAX).ok()
    }
}

/// The bytes that a value may still have.
struct ByteBudget(usize);

impl ByteBudget {
    fn take(&mut self, bytes: usize) -> Result<(), ValueError> {
        self.0 = self.0.checked_sub(bytes).ok_or(ValueError::TooLarge)?;
        Ok(())
    }
}

fn read(json: &Json, budget: &mut ByteBudget, depth: u16) -> Result<JqValue, ValueError> {
    let below = || depth.checked_sub(1).ok_or(ValueError::TooDeep);
    let mut deepest = 0;
    Ok(match json {
        Json::Null => plain(Val::Null, 4, budget)?,
        Json::Bool(value) => plain(Val::Bool(*value), 4, budget)?,
        Json::Number(value) => plain(Val::Num(number(value)), 4, budget)?,
        Json::String(text) => {
            budget.take(text.len() + 2)?;
            JqValue::plain(Val::utf8_str(text.clone()))
        }
        Json::Array(values) => {
            budget.take(2)?;
            let below = below()?;
            let values = values.iter().map(|value| {
                let value = read(value, budget, below)?;
                deepest = deepest.max(value.depth);
                Ok(value.val)
            });
            let values = values.collect::<Result<Vec<_>, _>>()?;
            JqValue { val: Val::Arr(values.into()), depth: deepest + 1 }
        }
        Json::Object(entries) => {
            budget.take(2)?;
            let below = below()?;
            let entries = entries.iter().map(|(key, value)| {
                budget.take(key.len() + 3)?;
                let value = read(value, budget, below)?;
                deepest = deepest.max(value.depth);
                Ok((Val::utf8_str(key.clone()), value.val))
            });
            let entries = entries.collect::<Result<Map, _>>()?;
            JqValue { val: Val::obj(entries), depth: deepest + 1 }
        }
    })
}

fn plain(val: Val, bytes: usize, budget: &mut ByteBudget) -> Result<JqValue, ValueError> {
    budget.take(bytes)?;
    Ok(JqValue::plain(val))
}

fn number(number: &Number) -> Num {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => Num::from_integral(value),
        (None, Some(value)) => Num::from_integral(value),
        (None, None) => Num::Float(number.as_f64().unwrap_or(f64::NAN)),
    }
}

fn write(val: &Val, budget: &mut ByteBudget) -> Result<Json, ValueError> {
    Ok(match val {
        Val::Null => {
            budget.take(4)?;
            Json::Null
        }
        Val::Bool(value) => {
            budget.take(4)?;
            Json::Bool(*value)
        }
        Val::Num(value) => {
            budget.take(4)?;
            json_number(value)
        }
        Val::BStr(text) | Val::TStr(text) => {
            budget.take(text.len() + 2)?;
            Json::String(String::from_utf8_lossy(text).into_owned())
        }
        Val::Arr(values) => {
            budget.take(2)?;
            Json::Array(values.iter().map(|value| write(value, budget)).collect::<Result<_, _>>()?)
        }
        Val::Obj(entries) => {
            budget.take(2)?;
            let entries = entries.iter().map(|(key, value)| {
                let key = match key {
                    Val::TStr(key) => String::from_utf8_lossy(key).into_owned(),
                    _ => String::new(),
                };
                budget.take(key.len() + 3)?;
                Ok((key, write(value, budget)?))
            });
            Json::Object(entries.collect::<Result<_, _>>()?)
        }
    })
}

/// A number in JSON. Integers have no fraction, as schemas require; NaN is null, as in jq.
fn json_number(number: &Num) -> Json {
    #[expect(clippy::cast_possible_truncation, reason = "it is an integer within the exact range")]
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
