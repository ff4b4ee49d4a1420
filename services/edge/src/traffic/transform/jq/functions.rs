//! The part of the standard library that computes.

use jaq_core::{
    Cv, Error, Exn, ValR, ValT as _,
    load::parse::Def,
    native::{Fun, bome, run, unary, v},
};
use jaq_json::{Num, Val};

use super::{
    Jq,
    meter::charge_bytes,
    regexes::{self, MatchParts},
    value::JqValue,
};

/// Definitions without their native functions here: those write, end the process, or need excluded
/// features.
const EXCLUDED: &[&str] = &[
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

/// The library functions written in jq.
pub(super) fn definitions() -> impl Iterator<Item = Def<&'static str>> {
    let library = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    library.filter(|definition| !EXCLUDED.contains(&definition.name))
}

/// The native library functions.
pub(super) fn functions() -> impl Iterator<Item = Fun<Jq>> {
    let library = jaq_core::funs::<Jq>().chain(jaq_std::base_funs());
    library.filter(|(name, ..)| *name != "halt").chain(json())
}

/// The functions that jaq implements only for its own values.
fn json() -> [Fun<Jq>; 9] {
    [
        run(("length", v(0), |cv| bome(length(&cv.1)))),
        run(("tojson", v(0), |cv| bome(Ok(JqValue::string(&cv.1.to_text()))))),
        run(("fromjson", v(0), |cv| bome(from_json(&cv.1)))),
        run(("has", v(1), |cv| unary(cv, |value, key| has(&value, &key)))),
        run(("contains", v(1), |cv| unary(cv, |one, other| Ok(contains(&one, &other).into())))),
        run(("indices", v(1), |cv| unary(cv, |within, needle| indices(within, &needle)))),
        run(("matches", v(2), |cv| match_parts(cv, MatchParts::Matches))),
        run(("split_matches", v(2), |cv| match_parts(cv, MatchParts::Both))),
        run(("split_", v(2), |cv| match_parts(cv, MatchParts::Between))),
    ]
}

fn match_parts<'a>(mut cv: Cv<'a, Jq>, parts: MatchParts) -> jaq_core::ValXs<'a, JqValue> {
    let (flags, pattern) = (cv.0.pop_var(), cv.0.pop_var());
    Box::new(std::iter::once(
        regexes::match_parts(&cv.1, &pattern, &flags, parts).map_err(Exn::from),
    ))
}

fn length(value: &JqValue) -> ValR<JqValue> {
    Ok(match &value.val {
        Val::Null => 0_usize.into(),
        Val::Num(Num::Int(number)) => {
            JqValue::plain(Val::Num(Num::from_integral(number.unsigned_abs())))
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

fn from_json(value: &JqValue) -> ValR<JqValue> {
    let text = value.try_text()?;
    JqValue::from_text(text).ok_or_else(|| Error::str("invalid JSON"))
}

fn has(value: &JqValue, key: &JqValue) -> ValR<JqValue> {
    match (&value.val, &key.val) {
        (Val::Obj(entries), Val::TStr(_)) => Ok(entries.contains_key(&key.val).into()),
        (Val::Arr(values), Val::Num(Num::Int(at))) => {
            Ok(usize::try_from(*at).is_ok_and(|at| at < values.len()).into())
        }
        _ => Err(Error::index(value.clone(), key.clone())),
    }
}

fn contains(one: &JqValue, other: &JqValue) -> bool {
    match (&one.val, &other.val) {
        (Val::TStr(_), Val::TStr(_)) => {
            let (one, other) = (one.text().unwrap_or_default(), other.text().unwrap_or_default());
            charge_bytes(one.len() + other.len());
            one.contains(other)
        }
        (Val::Arr(_), Val::Arr(_)) => {
            let items =
                |value: &JqValue| value.clone().values().filter_map(Result::ok).collect::<Vec<_>>();
            let (items, needle) = (items(one), items(other));
            needle.iter().all(|needle| items.iter().any(|item| contains(item, needle)))
        }
        (Val::Obj(entries), Val::Obj(_)) => {
            other.clone().key_values().filter_map(Result::ok).all(|(key, needle)| {
                let has = entries.contains_key(&key.val);
                has && one.clone().index(&key).is_ok_and(|value| contains(&value, &needle))
            })
        }
        _ => one == other,
    }
}

fn indices(within: JqValue, needle: &JqValue) -> ValR<JqValue> {
    if let (Some(text), Some(needle)) = (within.text(), needle.text()) {
        charge_bytes(text.len().saturating_mul(2) + needle.len());
        if needle.is_empty() {
            return Ok(std::iter::empty().collect());
        }
        let places = text.char_indices().enumerate();
        let found = places.filter(|(_, (at, _))| text[*at..].starts_with(needle));
        return Ok(found.map(|(place, _)| JqValue::from(place)).collect());
    }
    match (&within.val, &needle.val) {
        (Val::Arr(_), Val::Arr(_)) => Err(Error::str("cannot search for an array within an array")),
        (Val::Arr(_), _) => {
            let values = within.values().enumerate();
            let found =
                values.filter(|(_, value)| value.as_ref().is_ok_and(|value| value == needle));
            Ok(found.map(|(place, _)| JqValue::from(place)).collect())
        }
        _ => Err(Error::index(within, needle.clone())),
    }
}
