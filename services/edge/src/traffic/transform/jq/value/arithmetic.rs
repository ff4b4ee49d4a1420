//! Arithmetic. Growth is charged before it happens.

use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

use jaq_core::{Error, ValR, ops::Math};
use jaq_json::{Map, Num, Rc, Val};

use super::{JqValue, owned};
use crate::traffic::transform::jq::meter::{charge, charge_bytes};

impl JqValue {
    /// A result of jaq. A larger integer than JSON numbers here becomes a float, so that numbers do
    /// not grow without bound.
    fn computed(val: Result<Val, jaq_json::Error>, depth: u16) -> ValR<Self> {
        let val = match val.map_err(|_| Error::str("cannot be calculated"))? {
            Val::Num(Num::BigInt(big)) if big.to_string().parse::<u64>().is_err() => {
                Val::Num(Num::Float(big.to_string().parse().unwrap_or(f64::NAN)))
            }
            val => val,
        };
        Ok(Self { val, depth })
    }
}

/// How many values an addition copies.
fn copied_length<T>(shared: &Rc<T>, length: usize) -> usize {
    if Rc::strong_count(shared) > 1 { length } else { 0 }
}

impl Add for JqValue {
    type Output = ValR<Self>;

    fn add(self, other: Self) -> ValR<Self> {
        match (&self.val, &other.val) {
            (Val::Null, _) | (_, Val::Null) | (Val::Num(_), Val::Num(_)) => {}
            (Val::TStr(one), Val::TStr(two)) => charge_bytes(one.len() + two.len()),
            (Val::Arr(one), Val::Arr(two)) => charge(copied_length(one, one.len()) + two.len()),
            (Val::Obj(one), Val::Obj(two)) => charge(copied_length(one, one.len()) + two.len()),
            _ => return Err(Error::math(self, Math::Add, other)),
        }
        charge(1);
        Self::computed(self.val + other.val, self.depth.max(other.depth))
    }
}

impl Sub for JqValue {
    type Output = ValR<Self>;

    fn sub(self, other: Self) -> ValR<Self> {
        charge(1);
        let depth = self.depth;
        match (self.val, other.val) {
            (Val::Num(one), Val::Num(two)) => Self::computed(Val::Num(one) - Val::Num(two), 0),
            (Val::Arr(one), Val::Arr(two)) => {
                let two: Vec<_> =
                    two.iter().map(|value| Self::inner(value.clone(), other.depth)).collect();
                let one = owned(one, Vec::len).into_iter().map(|value| Self::inner(value, depth));
                Ok(one.filter(|value| !two.contains(value)).collect())
            }
            (one, two) => {
                let (one, two) = (Self { val: one, depth }, Self { val: two, depth: other.depth });
                Err(Error::math(one, Math::Sub, two))
            }
        }
    }
}

impl Mul for JqValue {
    type Output = ValR<Self>;

    fn mul(self, other: Self) -> ValR<Self> {
        match (&self.val, &other.val) {
            (Val::Num(_), Val::Num(_)) => charge(1),
            (Val::TStr(text), Val::Num(Num::Int(times)))
            | (Val::Num(Num::Int(times)), Val::TStr(text)) => {
                charge_bytes(text.len().saturating_mul(usize::try_from(*times).unwrap_or(0)));
            }
            (Val::Obj(one), Val::Obj(two)) => {
                charge_merge(one, two);
            }
            _ => return Err(Error::math(self, Math::Mul, other)),
        }
        Self::computed(self.val * other.val, self.depth.max(other.depth))
    }
}

/// Charges for the copies of a recursive merge of objects.
fn charge_merge(one: &Map, two: &Map) {
    charge(one.len() + two.len());
    for (key, two) in two {
        if let (Some(Val::Obj(one)), Val::Obj(two)) = (one.get(key), two) {
            charge_merge(one, two);
        }
    }
}

impl Div for JqValue {
    type Output = ValR<Self>;

    fn div(self, other: Self) -> ValR<Self> {
        match (&self.val, &other.val) {
            (Val::Num(_), Val::Num(_)) => Self::computed(self.val / other.val, 0),
            // A split, into at most as many parts as there are bytes.
            (Val::TStr(one), Val::TStr(two)) => {
                charge(one.len() + two.len());
                Self::computed(self.val / other.val, 1)
            }
            _ => Err(Error::math(self, Math::Div, other)),
        }
    }
}

impl Rem for JqValue {
    type Output = ValR<Self>;

    fn rem(self, other: Self) -> ValR<Self> {
        match (&self.val, &other.val) {
            (Val::Num(_), Val::Num(_)) => Self::computed(self.val % other.val, 0),
            _ => Err(Error::math(self, Math::Rem, other)),
        }
    }
}

impl Neg for JqValue {
    type Output = ValR<Self>;

    fn neg(self) -> ValR<Self> {
        match self.val {
            Val::Num(_) => Self::computed(-self.val, 0),
            _ => Err(Error::typ(self, "a number")),
        }
    }
}
