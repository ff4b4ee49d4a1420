//! The standard library, as far as it computes.

use jaq_core::{
    Cv, Error, Exn, ValR, ValT as _,
    load::parse::Def,
    native::{Fun, bome, run, unary, v},
};
use jaq_json::{Num, Val};

use super::{
    Jq,
    meter::charge_bytes,
    regexes::{self, Pieces},
    value::Value,
};

/// Definitions whose functions are not here: they write, end the process, or come with what is left out.
const LEFT_OUT: &[&str] = &[
    "stderr",
    "debug",
    "halt",
    "halt_error",
    "logb",
    "significand",
    "pow10",
    "drem",
    "nexttoward",
    "scalb",
    "gamma",
    "todate",
    "fromdate",
    "@html",
    "@htmld",
    "@uri",
    "@urid",
    "@base64",
    "@base64d",
];

/// What programs can use that is written in jq.
pub(super) fn definitions() -> impl Iterator<Item = Def<&'static str>> {
    let library = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    library.filter(|definition| !LEFT_OUT.contains(&definition.name))
}

/// What programs can use that is not.
pub(super) fn functions() -> impl Iterator<Item = Fun<Jq>> {
    let library = jaq_core::funs::<Jq>().chain(jaq_std::base_funs());
    library.filter(|(name, ..)| *name != "halt").chain(json())
}

/// Those that jaq has for its own values alone.
fn json() -> [Fun<Jq>; 9] {
    [
        run(("length", v(0), |cv| bome(length(&cv.1)))),
        run(("tojson", v(0), |cv| bome(Ok(Value::string(&cv.1.to_text()))))),
        run(("fromjson", v(0), |cv| bome(from_json(&cv.1)))),
        run(("has", v(1), |cv| unary(cv, |value, key| has(&value, &key)))),
        run(("contains", v(1), |cv| unary(cv, |one, other| Ok(contains(&one, &other).into())))),
        run(("indices", v(1), |cv| unary(cv, |within, wanted| indices(within, &wanted)))),
        run(("matches", v(2), |cv| pieces(cv, Pieces::Matches))),
        run(("split_matches", v(2), |cv| pieces(cv, Pieces::Both))),
        run(("split_", v(2), |cv| pieces(cv, Pieces::Others))),
    ]
}

fn pieces<'a>(mut cv: Cv<'a, Jq>, wanted: Pieces) -> jaq_core::ValXs<'a, Value> {
    let (flags, pattern) = (cv.0.pop_var(), cv.0.pop_var());
    Box::new(std::iter::once(regexes::pieces(&cv.1, &pattern, &flags, wanted).map_err(Exn::from)))
}

fn length(value: &Value) -> ValR<Value> {
    Ok(match &value.val {
        Val::Null => 0_usize.into(),
        Val::Num(Num::Int(number)) => {
            Value::plain(Val::Num(Num::from_integral(number.unsigned_abs())))
        }
        Val::Num(_) => jaq_std::ValT::as_f64(value).unwrap_or_default().abs().into(),
        Val::TStr(text) | Val::BStr(text) => {
            charge_bytes(text.len());
            value.text().map_or(text.len(), |text| text.chars().count()).into()
        }
        Val::Arr(values) => values.len().into(),
        Val::Obj(entries) => entries.len().into(),
        Val::Bool(_) => return Err(Error::str("a boolean has no length")),
    })
}

fn from_json(value: &Value) -> ValR<Value> {
    let text = value.try_text()?;
    Value::from_text(text).ok_or_else(|| Error::str("this text is no JSON"))
}

fn has(value: &Value, key: &Value) -> ValR<Value> {
    match (&value.val, &key.val) {
        (Val::Obj(entries), Val::TStr(_)) => Ok(entries.contains_key(&key.val).into()),
        (Val::Arr(values), Val::Num(Num::Int(at))) => {
            Ok(usize::try_from(*at).is_ok_and(|at| at < values.len()).into())
        }
        _ => Err(Error::index(value.clone(), key.clone())),
    }
}

fn contains(one: &Value, other: &Value) -> bool {
    match (&one.val, &other.val) {
        (Val::TStr(_), Val::TStr(_)) => {
            let (one, other) = (one.text().unwrap_or_default(), other.text().unwrap_or_default());
            charge_bytes(one.len() + other.len());
            one.contains(other)
        }
        (Val::Arr(_), Val::Arr(_)) => {
            let items =
                |value: &Value| value.clone().values().filter_map(Result::ok).collect::<Vec<_>>();
            let (items, wanted) = (items(one), items(other));
            wanted.iter().all(|wanted| items.iter().any(|item| contains(item, wanted)))
        }
        (Val::Obj(entries), Val::Obj(_)) => {
            other.clone().key_values().filter_map(Result::ok).all(|(key, wanted)| {
                let has = entries.contains_key(&key.val);
                has && one.clone().index(&key).is_ok_and(|value| contains(&value, &wanted))
            })
        }
        _ => one == other,
    }
}

fn indices(within: Value, wanted: &Value) -> ValR<Value> {
    if let (Some(text), Some(wanted)) = (within.text(), wanted.text()) {
        charge_bytes(text.len().saturating_mul(2) + wanted.len());
        if wanted.is_empty() {
            return Ok(std::iter::empty().collect());
        }
        let places = text.char_indices().enumerate();
        let found = places.filter(|(_, (at, _))| text[*at..].starts_with(wanted));
        return Ok(found.map(|(place, _)| Value::from(place)).collect());
    }
    match (&within.val, &wanted.val) {
        (Val::Arr(_), Val::Arr(_)) => Err(Error::str("a list within a list cannot be looked for")),
        (Val::Arr(_), _) => {
            let values = within.values().enumerate();
            let found =
                values.filter(|(_, value)| value.as_ref().is_ok_and(|value| value == wanted));
            Ok(found.map(|(place, _)| Value::from(place)).collect())
        }
        _ => Err(Error::index(within, wanted.clone())),
    }
}
