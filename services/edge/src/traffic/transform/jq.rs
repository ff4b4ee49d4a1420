//! The language of transformations: jq, by jaq, on values that count what they cost.
//!
//! jaq has no limits of its own. Here every step of an evaluation and all that is made, walked or copied takes from
//! what the run may use ([`meter`]), so that no program goes on for ever or takes memory without a bound. Of the
//! standard library there is what computes: nothing reads files, input, the environment or the clock, or writes.

use jaq_core::{DataT, Lut, data::HasLut};

use self::value::Value;

pub(super) use self::meter::STACK_BYTES;
pub(crate) use self::program::{Failure, Program};

mod functions;
mod meter;
mod program;
mod regexes;
#[cfg(test)]
mod tests;
mod value;

/// The kind of data that programs work on.
#[derive(Debug)]
struct Jq;

impl DataT for Jq {
    type V<'a> = Value;
    type Data<'a> = Scope<'a>;
}

/// What a program is looked up in. jaq looks there at the beginning of every step.
#[derive(Clone, Copy)]
struct Scope<'a>(&'a Lut<Jq>);

impl<'a> HasLut<'a, Jq> for Scope<'a> {
    fn lut(&self) -> &'a Lut<Jq> {
        meter::step();
        self.0
    }
}
