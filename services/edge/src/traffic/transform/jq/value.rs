//! jaq's JSON value with charged operations.

use std::fmt;

use jaq_core::{Error, Exn, ValR, ValX, box_iter::BoxIter, path::Opt, val::Range};
use jaq_json::{Map, Num, Rc, Val};

use super::meter::{LimitExceeded, charge, charge_bytes, stop};

pub(super) use self::json::ValueError;

mod arithmetic;
mod compare;
mod json;

/// The deepest nesting of a value, so that walking and dropping one needs little stack.
const DEPTH_MAX: u16 = 256;

/// A JSON value. Keys are text, and numbers have the range of JSON numbers here.
#[derive(Clone, Debug)]
pub(super) struct JqValue {
    pub(super) val: Val,
    /// An upper bound of its nesting; 0 for scalars.
    depth: u16,
}

impl JqValue {
    /// A scalar.
    pub(super) fn plain(val: Val) -> Self {
        Self { val, depth: 0 }
    }

    pub(super) fn string(text: &str) -> Self {
        charge_bytes(text.len());
        Self::plain(Val::utf8_str(text.to_owned()))
    }

    /// An array or object whose contents nest this deep.
    fn container(val: Val, deepest: u16) -> Self {
        if deepest >= DEPTH_MAX {
            stop(LimitExceeded::Depth);
        }
        Self { val, depth: deepest + 1 }
    }

    /// A value within an array or object that nests this deep.
    fn inner(val: Val, depth: u16) -> Self {
        let depth =
            if matches!(val, Val::Arr(_) | Val::Obj(_)) { depth.saturating_sub(1) } else { 0 };
        Self { val, depth }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.val {
            Val::TStr(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    pub(super) fn try_text(&self) -> ValR<&str, Self> {
        self.text().ok_or_else(|| Error::typ(self.clone(), "string"))
    }

    /// The kind of the value, for errors. They contain no values, which may be private.
    fn kind(&self) -> &'static str {
        match &self.val {
            Val::Null => "null",
            Val::Bool(_) => "a boolean",
            Val::Num(_) => "a number",
            Val::BStr(_) | Val::TStr(_) => "a string",
            Val::Arr(_) => "an array",
            Val::Obj(_) => "an object",
        }
    }
}

impl fmt::Display for JqValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl From<bool> for JqValue {
    fn from(value: bool) -> Self {
        Self::plain(value.into())
    }
}

impl From<isize> for JqValue {
    fn from(value: isize) -> Self {
        Self::plain(value.into())
    }
}

impl From<usize> for JqValue {
    fn from(value: usize) -> Self {
        Self::plain(value.into())
    }
}

impl From<f64> for JqValue {
    fn from(value: f64) -> Self {
        Self::plain(value.into())
    }
}

impl From<String> for JqValue {
    fn from(text: String) -> Self {
        charge_bytes(text.len());
        Self::plain(text.into())
    }
}

impl From<Range<Self>> for JqValue {
    fn from(range: Range<Self>) -> Self {
        let deepest =
            range.start.iter().chain(&range.end).map(|bound| bound.depth).max().unwrap_or(0);
        let bound = |bound: Option<Self>| bound.map(|bound| bound.val);
        Self::container((bound(range.start)..bound(range.end)).into(), deepest)
    }
}

impl FromIterator<Self> for JqValue {
    fn from_iter<T: IntoIterator<Item = Self>>(values: T) -> Self {
        let mut deepest = 0;
        let values = values.into_iter().map(|value| {
            charge(1);
            deepest = deepest.max(value.depth);
            value.val
        });
        let values: Vec<_> = values.collect();
        Self::container(Val::Arr(values.into()), deepest)
    }
}

impl jaq_core::ValT for JqValue {
    fn from_num(text: &str) -> ValR<Self> {
        let number = text.parse().map(Num::Int).or_else(|_| text.parse().map(Num::Float));
        number.map(|number| Self::plain(Val::Num(number))).map_err(|_| Error::str("invalid number"))
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(entries: I) -> ValR<Self> {
        let (mut map, mut deepest) = (Map::default(), 0);
        for (key, value) in entries {
            charge(1);
            if key.text().is_none() {
                return Err(Error::typ(key, "an object's key"));
            }
            deepest = deepest.max(value.depth);
            map.insert(key.val, value.val);
        }
        Ok(Self::container(Val::obj(map), deepest))
    }

    fn key_values(self) -> BoxIter<'static, ValR<(Self, Self), Self>> {
        let depth = self.depth;
        match self.val {
            Val::Arr(values) => {
                let values = owned(values, Vec::len).into_iter().enumerate();
                Box::new(values.map(move |(at, value)| Ok((at.into(), Self::inner(value, depth)))))
            }
            Val::Obj(map) => {
                let entries = owned(map, Map::len).into_iter();
                Box::new(
                    entries
                        .map(move |(key, value)| Ok((Self::plain(key), Self::inner(value, depth)))),
                )
            }
            _ => Box::new(std::iter::once(Err(Error::typ(self, "an array or object")))),
        }
    }

    fn values(self) -> Box<dyn Iterator<Item = ValR<Self>>> {
        Box::new(self.key_values().map(|entry| entry.map(|(_, value)| value)))
    }

    fn index(self, index: &Self) -> ValR<Self> {
        let depth = self.depth;
        match (&self.val, &index.val) {
            (Val::Null, _) => Ok(Self::plain(Val::Null)),
            (Val::Arr(values), Val::Num(Num::Int(at))) => {
                let value = resolve_index(*at, values.len()).and_then(|at| values.get(at)).cloned();
                Ok(Self::inner(value.unwrap_or_default(), depth))
            }
            (Val::Obj(map), Val::TStr(key)) => {
                charge_bytes(key.len());
                Ok(Self::inner(map.get(&index.val).cloned().unwrap_or_default(), depth))
            }
            _ => Err(Error::index(self, index.clone())),
        }
    }

    fn range(self, range: Range<&Self>) -> ValR<Self> {
        match &self.val {
            Val::Null => return Ok(self),
            Val::Arr(values) => charge(values.len()),
            Val::TStr(text) => charge_bytes(text.len()),
            _ => return Err(Error::typ(self, "an array or string")),
        }
        let bound = |bound: Option<&Self>| bound.map(|bound| bound.val.clone());
        let (start, end) = (bound(range.start), bound(range.end));
        if [&start, &end].into_iter().flatten().any(|bound| !is_bound(bound)) {
            return Err(Error::str("slice bounds must be integers"));
        }
        let depth = self.depth;
        let sliced = jaq_core::ValT::range(self.val, start.as_ref()..end.as_ref());
        sliced.map(|val| Self { val, depth }).map_err(|_| Error::str("cannot be sliced"))
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        let depth = self.depth;
        match self.val {
            Val::Arr(values) => {
                let values = owned(values, Vec::len).into_iter();
                values.flat_map(|value| f(Self::inner(value, depth))).collect()
            }
            Val::Obj(map) => {
                let (mut mapped, mut deepest) = (Map::default(), 0);
                for (key, value) in owned(map, Map::len) {
                    if let Some(value) = f(Self::inner(value, depth)).next().transpose()? {
                        deepest = deepest.max(value.depth);
                        mapped.insert(key, value.val);
                    }
                }
                Ok(Self::container(Val::obj(mapped), deepest))
            }
            _ => opt.fail(self, |value| Exn::from(Error::typ(value, "an array or object"))),
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        index: &Self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        let depth = self.depth;
        match (self.val, &index.val) {
            // A missing object is created, as in jq.
            (Val::Null, Val::TStr(_)) => {
                Self::container(Val::obj(Map::default()), 0).map_index(index, opt, f)
            }
            (Val::Obj(mut map), Val::TStr(key)) => {
                charge_bytes(key.len());
                let entries = writable(&mut map, Map::len);
                let value = entries.get_mut(&index.val).map(std::mem::take).unwrap_or_default();
                let value = f(Self::inner(value, depth)).next().transpose()?;
                let deepest = value.as_ref().map_or(0, |value| value.depth);
                match value {
                    Some(value) => drop(entries.insert(index.val.clone(), value.val)),
                    None => {
                        charge(entries.len());
                        entries.shift_remove(&index.val);
                    }
                }
                Ok(Self::container(Val::Obj(map), deepest.max(depth.saturating_sub(1))))
            }
            (Val::Arr(mut values), Val::Num(Num::Int(at))) => {
                let Some(at) = resolve_index(*at, values.len()) else {
                    let values = Self { val: Val::Arr(values), depth };
                    return opt.fail(values, |_| Exn::from(Error::str("index out of range")));
                };
                let items = writable(&mut values, Vec::len);
                let value =
                    f(Self::inner(std::mem::take(&mut items[at]), depth)).next().transpose()?;
                let deepest = value.as_ref().map_or(0, |value| value.depth);
                match value {
                    Some(value) => items[at] = value.val,
                    None => {
                        charge(items.len());
                        items.remove(at);
                    }
                }
                Ok(Self::container(Val::Arr(values), deepest.max(depth.saturating_sub(1))))
            }
            (val, _) => {
                let value = Self { val, depth };
                opt.fail(value, |value| Exn::from(Error::index(value, index.clone())))
            }
        }
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        range: Range<&Self>,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        let Val::Arr(values) = &self.val else {
            return opt.fail(self, |value| Exn::from(Error::typ(value, "an array")));
        };
        let length = values.len();
        let bound = |bound: Option<&Self>, default: usize| match bound.map(|bound| &bound.val) {
            None | Some(Val::Null) => Some(default),
            Some(Val::Num(Num::Int(at))) if *at < 0 => {
                Some(length.saturating_sub(at.unsigned_abs()))
            }
            Some(Val::Num(Num::Int(at))) => Some(at.unsigned_abs().min(length)),
            Some(_) => None,
        };
        let (Some(start), Some(end)) = (bound(range.start, 0), bound(range.end, length)) else {
            return opt.fail(self, |_| Exn::from(Error::str("slice bounds must be integers")));
        };
        let end = end.max(start);
        let depth = self.depth;
        let whole: Vec<_> = self.values().collect::<Result<_, _>>()?;
        let (before, rest) = whole.split_at(start);
        let (slice, after) = rest.split_at(end - start);
        let sliced = Self { depth, ..slice.iter().cloned().collect() };
        let replaced = match f(sliced).next().transpose()? {
            None => Vec::new(),
            Some(Self { val: Val::Arr(values), depth }) => {
                owned(values, Vec::len).into_iter().map(|value| Self::inner(value, depth)).collect()
            }
            Some(other) => return Err(Exn::from(Error::typ(other, "an array"))),
        };
        Ok(before.iter().cloned().chain(replaced).chain(after.iter().cloned()).collect())
    }

    fn as_bool(&self) -> bool {
        self.val.as_bool()
    }

    fn into_string(self) -> Self {
        if self.text().is_some() { self } else { Self::string(&self.to_text()) }
    }
}

impl jaq_std::ValT for JqValue {
    fn into_seq<S: FromIterator<Self>>(self) -> Result<S, Self> {
        let depth = self.depth;
        match self.val {
            Val::Arr(values) => Ok(owned(values, Vec::len)
                .into_iter()
                .map(|value| Self::inner(value, depth))
                .collect()),
            _ => Err(self),
        }
    }

    fn is_int(&self) -> bool {
        self.val.is_int()
    }

    fn as_isize(&self) -> Option<isize> {
        self.val.as_isize()
    }

    fn as_f64(&self) -> Option<f64> {
        self.val.as_f64()
    }

    fn is_utf8_str(&self) -> bool {
        self.val.is_utf8_str()
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        let bytes = self.val.as_bytes()?;
        charge_bytes(bytes.len());
        Some(bytes)
    }

    fn as_sub_str(&self, part: &[u8]) -> Self {
        Self::plain(self.val.as_sub_str(part))
    }

    fn from_utf8_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        charge_bytes(bytes.as_ref().len());
        Self::plain(Val::from_utf8_bytes(bytes))
    }
}

/// Takes a value that may be shared, copying it if it is.
fn owned<T: Clone>(shared: Rc<T>, length: impl Fn(&T) -> usize) -> T {
    charge(length(&shared));
    Rc::try_unwrap(shared).unwrap_or_else(|shared| T::clone(&shared))
}

/// A mutable reference to a value that may be shared, copying it if it is.
fn writable<T: Clone>(shared: &mut Rc<T>, length: impl Fn(&T) -> usize) -> &mut T {
    if Rc::strong_count(shared) > 1 {
        charge(length(shared));
    }
    Rc::make_mut(shared)
}

/// Resolves an index, which counts from the end if it is negative.
fn resolve_index(at: isize, length: usize) -> Option<usize> {
    let at = if at < 0 { length.checked_sub(at.unsigned_abs())? } else { at.unsigned_abs() };
    Some(at).filter(|at| *at < length)
}

fn is_bound(bound: &Val) -> bool {
    matches!(bound, Val::Null | Val::Num(Num::Int(_)))
}
