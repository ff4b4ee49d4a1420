//! Command lines of services, and of commands that parse arguments the same way.

use std::{
    any::TypeId,
    ffi::OsStr,
    process::{self, ExitCode},
};

use clap::{Arg, ArgAction, Args, Command, builder::BoolishValueParser, error::ErrorKind};
use url::Url;

use crate::{TelemetryConfig, drain::DrainConfig, error_chain, urls::parse_url};

mod environment;
mod probe;

pub use self::environment::{EnvironmentError, apply_environment};

/// The command line of a service: its own options, and those of every process.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceArgs<C: Args> {
    /// The service's own options.
    #[command(flatten)]
    pub config: C,
    /// How it stops.
    #[command(flatten)]
    pub drain: DrainConfig,
    /// Logs, traces and metrics.
    #[command(flatten)]
    pub telemetry: TelemetryConfig,
}

/// Parses the command line of a service. `about` is the first line of its help.
///
/// Prints the help or an error and exits when the arguments are invalid; exits after the command
/// `probe`.
pub fn parse_args<A: Args>(service: &str, about: &'static str) -> A {
    let matches = service_command::<A>(service, about).get_matches();
    if let Some(probed) = probe::run(&matches) {
        if let Err(error) = &probed {
            print_error(error);
        }
        process::exit(i32::from(probed.is_err()));
    }
    A::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The command line of a service. Every `--long-name` is also the environment variable
/// `DRAWBRIDGE_<SERVICE>_LONG_NAME`, unless the argument names another one.
#[must_use]
pub fn service_command<A: Args>(service: &str, about: &'static str) -> Command {
    // Set after the arguments, because their own descriptions would replace it.
    let command = A::augment_args(Command::new(format!("drawbridge-{service}")));
    let command = command.about(about).long_about(None::<&str>).version(version());
    with_env(probe::add(command), service)
}

/// The commit that the process was built from, if the build named it.
pub(crate) const COMMIT: Option<&str> = option_env!("DRAWBRIDGE_COMMIT");

/// The version of a service, with the commit if `DRAWBRIDGE_COMMIT` was set at build time.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    COMMIT.map_or_else(|| version.to_owned(), |it| format!("{version} ({it})"))
}

/// The prefix of the environment variables of the command with this path.
fn env_prefix(path: &[&str]) -> String {
    path.iter().fold("DRAWBRIDGE_".to_owned(), |prefix, name| prefix + &upper_snake(name) + "_")
}

/// The environment variable of an option of the command with this path:
/// `DRAWBRIDGE_<COMMAND>_<OPTION>`.
#[must_use]
pub fn env_name(path: &[&str], long: &str) -> String {
    env_prefix(path) + &upper_snake(long)
}

fn upper_snake(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

/// Assigns an environment variable to every option of a command and its subcommands that does not
/// name one itself. The variables of switches accept `true` and `false`. URL options report a
/// missing scheme.
#[must_use]
pub fn with_env(command: Command, name: &str) -> Command {
    add_env(command, &env_prefix(&[name]))
}

fn add_env(command: Command, prefix: &str) -> Command {
    command.mut_args(|argument| argument_with_env(argument, prefix)).mut_subcommands(|subcommand| {
        let prefix = format!("{prefix}{}_", upper_snake(subcommand.get_name()));
        add_env(subcommand, &prefix)
    })
}

/// Assigns an environment variable to one option: `prefix` and the option's name.
#[must_use]
pub fn argument_with_env(argument: Arg, prefix: &str) -> Arg {
    let is_url = argument.get_value_parser().type_id() == TypeId::of::<Url>();
    let argument = if is_url { argument.value_parser(parse_url) } else { argument };
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
    let Some(long) = argument.get_long() else { return argument };
    let name = match argument.get_env() {
        Some(name) => name.to_owned(),
        None if is_switch || argument.get_action().takes_values() => {
            (prefix.to_owned() + &upper_snake(long)).into()
        }
        None => return argument,
    };
    match std::env::var_os(&name) {
        // clap treats a switch whose variable is false as given: it would conflict with others, and
        // require others.
        Some(value) if is_switch && is_false(&value) => argument,
        _ if is_switch => argument.env(name).value_parser(BoolishValueParser::new()),
        _ => argument.env(name),
    }
}

fn is_false(value: &OsStr) -> bool {
    let value = value.to_string_lossy().to_lowercase();
    ["", "n", "no", "f", "false", "off", "0"].contains(&value.as_str())
}

/// The exit code of a service or a command. An error is printed in clap's format: `error: ` and the
/// causes on one line.
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

/// Prints an error with its causes.
pub fn print_error(error: &dyn std::error::Error) {
    let error = clap::Error::raw(ErrorKind::Io, error_chain(error) + "\n");
    // Nothing can be done if the terminal is closed.
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
                "DRAWBRIDGE_EDGE_EMBEDDED",
            ]
        );
    }

    #[test]
    fn environment_variables_of_a_subcommand_are_named_after_its_path() {
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
    fn a_url_option_without_a_scheme_is_rejected_with_the_url_to_write() {
        for option in ["--public-url", "--otlp-endpoint"] {
            let command = service_command::<Sample>("edge", "");
            let error =
                command.try_get_matches_from(["edge", option, "localhost:7450"]).unwrap_err();
            assert!(error.to_string().contains("write `http://localhost:7450`"), "{error}");
        }
    }
}
