//! The language of transformations: jq, by jaq, on values that are charged for their cost.
//!
//! jaq has no limits of its own. Here every step of an evaluation and every value that is created,
//! walked or copied is charged to the limits of the run ([`meter`]), so that every program ends and
//! uses bounded memory. The standard library has only functions that compute: none reads files,
//! input, the environment or the clock, and none writes.

use jaq_core::{DataT, Lut, data::HasLut};

use self::value::JqValue;

pub(super) use self::meter::STACK_BYTES;
pub(crate) use self::program::{Program, ProgramError};

mod functions;
mod meter;
mod program;
mod regexes;
#[cfg(test)]
mod tests;
mod value;

/// The data kind of programs, for jaq.
#[derive(Debug)]
struct Jq;

impl DataT for Jq {
    type V<'a> = JqValue;
    type Data<'a> = MeteredLut<'a>;
}

/// The lookup table of a program. jaq accesses it at the start of every step.
#[derive(Clone, Copy)]
struct MeteredLut<'a>(&'a Lut<Jq>);

impl<'a> HasLut<'a, Jq> for MeteredLut<'a> {
    fn lut(&self) -> &'a Lut<Jq> {
        meter::step();
        self.0
    }
}
