//! Which value comes first. A value may share its parts, so that to walk it takes longer than it is large.

use std::cmp::Ordering;

use jaq_json::Val;

use super::Value;
use crate::traffic::transform::jq::meter::{charge, charge_bytes};

impl Value {
    /// Pays for a walk through all of it.
    pub(in crate::traffic::transform::jq) fn weigh(&self) {
        weigh(&self.val);
    }

    /// Pays for a comparison, which walks no more than one of both.
    fn weigh_against(&self, other: &Self) {
        let walked = match (&self.val, &other.val) {
            (Val::TStr(one), Val::TStr(other)) => return charge_bytes(one.len().min(other.len())),
            (Val::Arr(one), Val::Arr(other)) => !one.is_empty() && !other.is_empty(),
            (Val::Obj(one), Val::Obj(other)) => !one.is_empty() && !other.is_empty(),
            _ => false,
        };
        if walked { self.weigh() } else { charge(1) }
    }
}

fn weigh(val: &Val) {
    match val {
        Val::BStr(text) | Val::TStr(text) => charge_bytes(text.len()),
        Val::Arr(values) => {
            charge(1);
            values.iter().for_each(weigh);
        }
        Val::Obj(map) => {
            charge(1);
            map.iter().for_each(|(key, value)| {
                weigh(key);
                weigh(value);
            });
        }
        _ => charge(1),
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.weigh_against(other);
        self.val == other.val
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        self.weigh_against(other);
        self.val.cmp(&other.val)
    }
}
