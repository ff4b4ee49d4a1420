//! Regular expressions, in time that grows with the text.

use std::{cell::RefCell, collections::HashMap};

use jaq_core::{Error, ValR, ValT as _};
use regex::{Captures, Regex, RegexBuilder};

use super::{
    meter::{charge, charge_bytes},
    value::Value,
};

/// How large a compiled expression may be, in bytes.
const COMPILED_BYTES_MAX: usize = 64 * 1024;
/// What compiling costs. It is done once for each run of a program.
const COMPILED_UNITS: usize = 1000;
/// The longest text that is searched, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static COMPILED: RefCell<HashMap<(String, String), Regex>> = RefCell::default();
}

/// Which pieces of a text are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pieces {
    /// What matches.
    Matches,
    /// What is between.
    Others,
    /// Both, in order.
    Both,
}

/// Forgets what was compiled for another run.
pub(super) fn forget() {
    COMPILED.with_borrow_mut(HashMap::clear);
}

pub(super) fn pieces(text: &Value, pattern: &Value, flags: &Value, wanted: Pieces) -> ValR<Value> {
    let (text, flags) = (text.try_text()?, flags.try_text()?);
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::str(format_args!(
            "a text of more than {TEXT_BYTES_MAX} bytes is not searched"
        )));
    }
    let regex = compiled(pattern.try_text()?, flags)?;
    let (global, no_empty) = (flags.contains('g'), flags.contains('n'));
    let (mut pieces, mut end) = (Vec::new(), 0);
    charge_bytes(text.len());
    for found in regex.captures_iter(text) {
        let Some(whole) = found.get(0).filter(|whole| !(no_empty && whole.is_empty())) else {
            continue;
        };
        charge_bytes(text.len() - whole.start());
        if wanted != Pieces::Matches {
            pieces.push(Value::string(&text[end..whole.start()]));
        }
        if wanted != Pieces::Others {
            pieces.push(groups(text, &regex, &found)?);
        }
        end = whole.end();
        if !global {
            break;
        }
    }
    if wanted != Pieces::Matches {
        pieces.push(Value::string(&text[end..]));
    }
    Ok(pieces.into_iter().collect())
}

/// A match and its groups, as jq tells of them.
fn groups(text: &str, regex: &Regex, found: &Captures<'_>) -> ValR<Value> {
    let groups =
        found.iter().zip(regex.capture_names()).filter_map(|(group, name)| Some((group?, name)));
    let groups = groups.map(|(group, name)| {
        charge_bytes(group.start());
        let offset = text[..group.start()].chars().count();
        let length = group.as_str().chars().count();
        let field = |name: &str, value: Value| (Value::string(name), value);
        let fields = [
            field("offset", offset.into()),
            field("length", length.into()),
            field("string", Value::string(group.as_str())),
        ];
        let name = name.map(|name| field("name", Value::string(name)));
        Value::from_map(fields.into_iter().chain(name))
    });
    groups.collect()
}

fn compiled(pattern: &str, flags: &str) -> ValR<Regex, Value> {
    let key = (pattern.to_owned(), flags.to_owned());
    if let Some(regex) = COMPILED.with_borrow(|compiled| compiled.get(&key).cloned()) {
        return Ok(regex);
    }
    charge(COMPILED_UNITS);
    if let Some(flag) = flags.chars().find(|flag| !"gnimslpx".contains(*flag)) {
        return Err(Error::str(format_args!("{flag:?} is no flag of a regular expression")));
    }
    let has = |flag: char| flags.contains(flag);
    let regex = RegexBuilder::new(pattern)
        .size_limit(COMPILED_BYTES_MAX)
        .case_insensitive(has('i'))
        .multi_line(has('m') || has('p'))
        .dot_matches_new_line(has('s') || has('p'))
        .swap_greed(has('l'))
        .ignore_whitespace(has('x'))
        .build()
        .map_err(|_| Error::str("this is no regular expression, or too large a one"))?;
    COMPILED.with_borrow_mut(|compiled| compiled.insert(key, regex.clone()));
    Ok(regex)
}
