//! The defaults of options, for configs that code builds.

use clap::{Args, Command};

/// The options of a command line with the arguments `given`: every other option has its default,
/// and no environment variable applies. For configs that code builds, so that defaults are written
/// once, at the options.
///
/// # Panics
/// When `given` lacks a required argument or has an invalid one, which is an error of the caller.
#[must_use]
pub fn parse_defaults<A: Args>(given: &[&str]) -> A {
    let command = A::augment_args(Command::new("defaults").no_binary_name(true));
    let command = command.mut_args(|argument| argument.env(None::<&str>));
    let parsed = command.try_get_matches_from(given).and_then(|it| A::from_arg_matches(&it));
    parsed.unwrap_or_else(|error| unreachable!("invalid defaults: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `PATH` is set in every environment.
    #[test]
    fn defaults_ignore_environment_variables() {
        #[derive(Debug, clap::Args)]
        struct WithPath {
            #[arg(long, env = "PATH", default_value = "the default")]
            path: String,
            #[arg(long)]
            required: String,
        }
        let WithPath { path, required } = parse_defaults(&["--required=given"]);
        assert_eq!((path.as_str(), required.as_str()), ("the default", "given"));
    }
}
