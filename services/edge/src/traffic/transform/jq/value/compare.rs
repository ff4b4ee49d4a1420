//! The order of values. Values may share parts, so a walk can take longer than their size in
//! memory.

use std::cmp::Ordering;

use jaq_json::Val;

use super::JqValue;
use crate::traffic::transform::jq::meter::{charge, charge_bytes};

impl JqValue {
    /// Charges for a walk through the whole value.
    pub(in crate::traffic::transform::jq) fn charge_walk(&self) {
        charge_walk(&self.val);
    }

    /// Charges for a comparison, which walks at most one of both.
    fn charge_comparison(&self, other: &Self) {
        let is_walked = match (&self.val, &other.val) {
            (Val::TStr(one), Val::TStr(other)) => return charge_bytes(one.len().min(other.len())),
            (Val::Arr(one), Val::Arr(other)) => !one.is_empty() && !other.is_empty(),
            (Val::Obj(one), Val::Obj(other)) => !one.is_empty() && !other.is_empty(),
            _ => false,
        };
        if is_walked { self.charge_walk() } else { charge(1) }
    }
}

fn charge_walk(val: &Val) {
    match val {
        Val::BStr(text) | Val::TStr(text) => charge_bytes(text.len()),
        Val::Arr(values) => {
            charge(1);
            values.iter().for_each(charge_walk);
        }
        Val::Obj(map) => {
            charge(1);
            map.iter().for_each(|(key, value)| {
                charge_walk(key);
                charge_walk(value);
            });
        }
        _ => charge(1),
    }
}

impl PartialEq for JqValue {
    fn eq(&self, other: &Self) -> bool {
        self.charge_comparison(other);
        self.val == other.val
    }
}

impl Eq for JqValue {}

impl PartialOrd for JqValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for JqValue {
    fn cmp(&self, other: &Self) -> Ordering {
        self.charge_comparison(other);
        self.val.cmp(&other.val)
    }
}
