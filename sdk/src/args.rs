//! Command lines: of services, and of whatever else is to read them alike.

use std::{any::TypeId, ffi::OsStr, process::ExitCode};

use clap::{Arg, ArgAction, Args, Command, builder::BoolishValueParser, error::ErrorKind};
use url::Url;

use crate::{TelemetryConfig, error_chain, url_text::parse_url};

mod environment;

pub use self::environment::{EnvironmentError, apply_environment};

/// The command line of a service: its own options, and those of telemetry.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceArgs<C: Args> {
    /// The service's own.
    #[command(flatten)]
    pub config: C,
    /// What it tells of itself, and where.
    #[command(flatten)]
    pub telemetry: TelemetryConfig,
}

/// Parses the command line of a service; `about` is what its help says first.
///
/// Prints help or a clear error and exits when the arguments are not right.
pub fn parse_args<A: Args>(service: &str, about: &'static str) -> A {
    let matches = service_command::<A>(service, about).get_matches();
    A::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The command line of a service. Every `--long-name` is also the environment variable
/// `DRAWBRIDGE_<SERVICE>_LONG_NAME`, unless the argument names another.
#[must_use]
pub fn service_command<A: Args>(service: &str, about: &'static str) -> Command {
    // After the arguments, whose own descriptions would replace it.
    let command = A::augment_args(Command::new(format!("drawbridge-{service}")));
    with_env(command.about(about).long_about(None::<&str>).version(version()), service)
}

/// The version of a service: with the commit, where `DRAWBRIDGE_COMMIT` named it when this was
/// built.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    option_env!("DRAWBRIDGE_COMMIT")
        .map_or_else(|| version.to_owned(), |it| format!("{version} ({it})"))
}

/// How the environment variables of a command begin, by its path.
fn env_prefix(path: &[&str]) -> String {
    path.iter().fold("DRAWBRIDGE_".to_owned(), |prefix, name| prefix + &shouted(name) + "_")
}

/// The environment variable of an option of the command with this path:
/// `DRAWBRIDGE_<COMMAND>_<OPTION>`.
#[must_use]
pub fn env_name(path: &[&str], long: &str) -> String {
    env_prefix(path) + &shouted(long)
}

fn shouted(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

/// Names an environment variable for every option of a service or a command, and of its
/// subcommands, that names none itself. Switches take `true` and `false` from theirs. An option
/// that is a URL explains what one without a scheme lacks.
#[must_use]
pub fn with_env(command: Command, name: &str) -> Command {
    below(command, &env_prefix(&[name]))
}

fn below(command: Command, prefix: &str) -> Command {
    command.mut_args(|argument| argument_with_env(argument, prefix)).mut_subcommands(|subcommand| {
        let prefix = format!("{prefix}{}_", shouted(subcommand.get_name()));
        below(subcommand, &prefix)
    })
}

/// The same for one option: `prefix` and the option's name.
#[must_use]
pub fn argument_with_env(argument: Arg, prefix: &str) -> Arg {
    let is_url = argument.get_value_parser().type_id() == TypeId::of::<Url>();
    let argument = if is_url { argument.value_parser(parse_url) } else { argument };
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
    let Some(long) = argument.get_long() else { return argument };
    let name = match argument.get_env() {
        Some(name) => name.to_owned(),
        None if is_switch || argument.get_action().takes_values() => {
            (prefix.to_owned() + &shouted(long)).into()
        }
        None => return argument,
    };
    match std::env::var_os(&name) {
        // To clap, a switch whose variable says no is one that is given: it would conflict with
        // others, and need them.
        Some(value) if is_switch && is_no(&value) => argument,
        _ if is_switch => argument.env(name).value_parser(BoolishValueParser::new()),
        _ => argument.env(name),
    }
}

fn is_no(value: &OsStr) -> bool {
    let value = value.to_string_lossy().to_lowercase();
    ["", "n", "no", "f", "false", "off", "0"].contains(&value.as_str())
}

/// Ends a process as a service or a command does: what went wrong is printed as clap prints what is
/// wrong with the arguments, `error: ` and the causes on one line.
pub fn exit_code<E>(ended: Result<(), E>) -> ExitCode
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(error.into().as_ref());
            ExitCode::FAILURE
        }
    }
}

/// Prints what went wrong, with its causes.
pub fn print_error(error: &dyn std::error::Error) {
    let error = clap::Error::raw(ErrorKind::Io, error_chain(error) + "\n");
    // A terminal that is gone has nobody to read it.
    let _ = error.print();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Args)]
    struct Sample {
        #[arg(long, default_value = "http://127.0.0.1:7180")]
        public_url: Url,
        #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
        otlp_endpoint: Option<Url>,
        #[arg(long)]
        embedded: bool,
    }

    #[derive(clap::Subcommand)]
    enum Commands {
        Check(Sample),
    }

    fn names(command: &Command) -> Vec<&str> {
        command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect()
    }

    #[test]
    fn every_option_has_an_environment_variable_named_after_the_service() {
        let command = service_command::<ServiceArgs<Sample>>("edge", "What it does");
        assert_eq!(command.get_about().map(ToString::to_string).as_deref(), Some("What it does"));
        let command = service_command::<Sample>("edge", "");
        assert_eq!(
            names(&command),
            [
                "DRAWBRIDGE_EDGE_PUBLIC_URL",
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "DRAWBRIDGE_EDGE_EMBEDDED"
            ]
        );
    }

    #[test]
    fn those_of_a_subcommand_are_named_after_its_path() {
        let command = <Commands as clap::Subcommand>::augment_subcommands(Command::new("policy"));
        let command = with_env(command, "policy");
        let check = command.find_subcommand("check").unwrap();
        let name = env_name(&["policy", "check"], "public-url");
        assert_eq!(
            (names(check)[0], name.as_str()),
            ("DRAWBRIDGE_POLICY_CHECK_PUBLIC_URL", name.as_str())
        );
    }

    #[test]
    fn an_option_that_is_a_url_says_what_one_without_a_scheme_lacks() {
        for option in ["--public-url", "--otlp-endpoint"] {
            let command = service_command::<Sample>("edge", "");
            let error =
                command.try_get_matches_from(["edge", option, "localhost:7450"]).unwrap_err();
            assert!(error.to_string().contains("write `http://localhost:7450`"), "{error}");
        }
    }
}
