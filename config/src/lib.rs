//! The files that an operator writes: their types with schema and defaults, and a reader that
//! reports all mistakes of a file with line, column and caret.
//!
//! A file is read in two steps. [`Mistakes::parse`] deserializes it into plain types and collects
//! everything that does not fit them. A service then lowers these types into its own rules and
//! pushes what is wrong with the values. [`Mistakes::finish`] returns the rules, or one error with
//! all mistakes.

pub use self::{
    error::{ConfigError, Mistake},
    mistakes::Mistakes,
    name::{Name, NameError, Namespace, NamespaceError},
    place::Place,
    suggest::closest,
    text::ConfigText,
    value::{Bounded, Spanned},
};

pub mod edge;
mod error;
mod found;
pub mod issuers;
mod json;
mod mistakes;
mod name;
mod place;
pub mod policy;
pub mod policy_keys;
pub mod setup;
mod structure;
mod suggest;
mod text;
pub mod users;
mod value;
mod wording;
