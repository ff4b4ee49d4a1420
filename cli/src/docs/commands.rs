//! The options of every command and every service, with their variables.

use std::fmt::Write as _;

use clap::{Arg, Command, builder::StyledStr};

use super::table;

pub(super) fn parts(command_line: Command) -> impl Iterator<Item = (String, String)> {
    let services = drawbridge_mesh::services().map(|service| {
        let mut command = (service.command)();
        command.build();
        (format!("options {}", service.name), options(&command))
    });
    services.chain([("commands".to_owned(), commands(command_line))])
}

/// A section for each command of `drawbridge`.
fn commands(mut command: Command) -> String {
    command.build();
    let mut text = String::new();
    describe_subcommands(&command, "drawbridge", &mut text);
    text.trim_end().to_owned() + "\n"
}

fn describe_subcommands(command: &Command, path: &str, text: &mut String) {
    let is_own = |command: &&Command| command.get_name() != "help" && !command.is_hide_set();
    for command in command.get_subcommands().filter(is_own) {
        let path = format!("{path} {}", command.get_name());
        if command.has_subcommands() {
            describe_subcommands(command, &path, text);
        } else {
            describe(command, &path, text);
        }
    }
}

fn describe(command: &Command, path: &str, text: &mut String) {
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(StyledStr::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "### `{path}`\n\n{about}\n\n```text\n{usage}\n```\n");
    let operands: Vec<_> = command.get_positionals().map(operand).collect();
    if !operands.is_empty() {
        let _ = writeln!(text, "{}", table(["argument", "meaning"], operands));
    }
    let options = options(command);
    if !options.is_empty() {
        let _ = writeln!(text, "{options}");
    }
}

fn operand(argument: &Arg) -> [String; 2] {
    let names = argument.get_value_names().unwrap_or_default();
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    [names.join(" "), meaning(argument)]
}

/// A table of the options of a command. Those under a heading follow its row.
fn options(command: &Command) -> String {
    let is_own = |argument: &&Arg| {
        let is_builtin = ["help", "version"].contains(&argument.get_id().as_str());
        !argument.is_positional() && !argument.is_hide_set() && !is_builtin
    };
    let arguments: Vec<_> = command.get_arguments().filter(is_own).collect();
    let mut headings = vec![None];
    for heading in arguments.iter().map(|argument| argument.get_help_heading()) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    let rows = headings.into_iter().flat_map(|heading| {
        let title = heading.map(|title| [format!("**{title}**"), String::new(), String::new()]);
        let of_heading = arguments.iter().filter(move |it| it.get_help_heading() == heading);
        title.into_iter().chain(of_heading.map(|argument| option(argument)))
    });
    if arguments.is_empty() {
        return String::new();
    }
    table(["option, variable", "default", "meaning"], rows)
}

fn option(argument: &Arg) -> [String; 3] {
    let mut names = format!("`--{}", argument.get_long().unwrap_or_default());
    if argument.get_action().takes_values() {
        for name in argument.get_value_names().unwrap_or_default() {
            let _ = write!(names, " {name}");
        }
    }
    names.push('`');
    if let Some(variable) = argument.get_env() {
        let _ = write!(names, "<br>`{}`", variable.to_string_lossy());
    }
    let defaults = argument.get_default_values().iter();
    let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
    let default = match (defaults.join(","), argument.is_required_set()) {
        (_, true) => "required".to_owned(),
        (default, _) if default.is_empty() || !argument.get_action().takes_values() => {
            String::new()
        }
        (default, _) => format!("`{default}`"),
    };
    [names, default, meaning(argument)]
}

fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help());
    let mut text = help.map(StyledStr::to_string).unwrap_or_default();
    let values = argument.get_possible_values();
    let values: Vec<_> = values.iter().filter(|value| !value.is_hide_set()).collect();
    if !values.is_empty() && argument.get_action().takes_values() {
        let names: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        let end = if text.ends_with('.') { "" } else { "." };
        let _ = write!(text, "{end} One of {}.", names.join(", "));
    }
    text.replace("\n\n", "<br>")
}
