//! Regular expressions, in linear time.

use std::{cell::RefCell, collections::HashMap};

use jaq_core::{Error, ValR, ValT as _};
use regex::{Captures, Regex, RegexBuilder};

use super::{
    meter::{charge, charge_bytes},
    value::JqValue,
};

/// The largest compiled expression, in bytes.
const COMPILED_BYTES_MAX: usize = 64 * 1024;
/// The cost of a compilation, once per expression and run.
const COMPILE_UNITS: usize = 1000;
/// The longest text that is searched, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static COMPILED: RefCell<HashMap<(String, String), Regex>> = RefCell::default();
}

/// Which parts of a text to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MatchParts {
    /// The matches.
    Matches,
    /// The texts between matches.
    Between,
    /// Both, in order.
    Both,
}

/// Drops the expressions that another run compiled.
pub(super) fn clear_cache() {
    COMPILED.with_borrow_mut(HashMap::clear);
}

pub(super) fn match_parts(
    text: &JqValue,
    pattern: &JqValue,
    flags: &JqValue,
    kind: MatchParts,
) -> ValR<JqValue> {
    let (text, flags) = (text.try_text()?, flags.try_text()?);
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::str(format_args!(
            "cannot search a text of more than {TEXT_BYTES_MAX} bytes"
        )));
    }
    let regex = compiled(pattern.try_text()?, flags)?;
    let (is_global, skips_empty) = (flags.contains('g'), flags.contains('n'));
    let (mut parts, mut end) = (Vec::new(), 0);
    charge_bytes(text.len());
    for found in regex.captures_iter(text) {
        let Some(whole) = found.get(0).filter(|whole| !(skips_empty && whole.is_empty())) else {
            continue;
        };
        charge_bytes(text.len() - whole.start());
        if kind != MatchParts::Matches {
            parts.push(JqValue::string(&text[end..whole.start()]));
        }
        if kind != MatchParts::Between {
            parts.push(groups(text, &regex, &found)?);
        }
        end = whole.end();
        if !is_global {
            break;
        }
    }
    if kind != MatchParts::Matches {
        parts.push(JqValue::string(&text[end..]));
    }
    Ok(parts.into_iter().collect())
}

/// A match and its groups in the form of jq.
fn groups(text: &str, regex: &Regex, found: &Captures<'_>) -> ValR<JqValue> {
    let groups =
        found.iter().zip(regex.capture_names()).filter_map(|(group, name)| Some((group?, name)));
    let groups = groups.map(|(group, name)| {
        charge_bytes(group.start());
        let offset = text[..group.start()].chars().count();
        let length = group.as_str().chars().count();
        let field = |name: &str, value: JqValue| (JqValue::string(name), value);
        let fields = [
            field("offset", offset.into()),
            field("length", length.into()),
            field("string", JqValue::string(group.as_str())),
        ];
        let name = name.map(|name| field("name", JqValue::string(name)));
        JqValue::from_map(fields.into_iter().chain(name))
    });
    groups.collect()
}

fn compiled(pattern: &str, flags: &str) -> ValR<Regex, JqValue> {
    let key = (pattern.to_owned(), flags.to_owned());
    if let Some(regex) = COMPILED.with_borrow(|compiled| compiled.get(&key).cloned()) {
        return Ok(regex);
    }
    charge(COMPILE_UNITS);
    if let Some(flag) = flags.chars().find(|flag| !"gnimslpx".contains(*flag)) {
        return Err(Error::str(format_args!("invalid regular expression flag {flag:?}")));
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
        .map_err(|_| Error::str("invalid or too large regular expression"))?;
    COMPILED.with_borrow_mut(|compiled| compiled.insert(key, regex.clone()));
    Ok(regex)
}
