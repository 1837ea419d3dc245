//! docs/cli.md is what the command line says of itself; it differs nowhere.

use std::{fmt::Write as _, fs, path::Path};

use clap::{Arg, Command, CommandFactory as _};

const HEAD: &str = "# The `forebay` command

Every subcommand with its arguments, as `forebay help` tells them. Exit codes: 0 done, 1 it could
not be done, 2 the arguments are at fault, 65 stored bytes are damaged, 75 somebody has the queue open
or a deadline passed, 77 a token was refused, 78 the configuration is at fault.

This page is written from the code: `UPDATE_DOCS=1 cargo test -p forebay page`.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut command = crate::Cli::command();
    command.build();
    subcommands(&command, "forebay", &mut page);
    page
}

fn subcommands(command: &Command, path: &str, page: &mut String) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        if sub.get_name() == "help" {
            continue;
        }
        let path = format!("{path} {}", sub.get_name());
        if sub.has_subcommands() {
            subcommands(sub, &path, page);
            continue;
        }
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = write!(page, "\n## `{path}`\n\n{about}.\n");
        let arguments: Vec<&Arg> = sub
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
            .filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
            .collect();
        if arguments.is_empty() {
            continue;
        }
        page.push_str("\n| argument | default | meaning |\n| --- | --- | --- |\n");
        for argument in arguments {
            row(argument, page);
        }
    }
}

fn row(argument: &Arg, page: &mut String) {
    let mut name = match (argument.get_long(), argument.get_short()) {
        (Some(long), Some(short)) => format!("-{short}, --{long}"),
        (Some(long), None) => format!("--{long}"),
        (None, Some(short)) => format!("-{short}"),
        (None, None) => String::new(),
    };
    if argument.get_action().takes_values() {
        let values = argument.get_value_names().unwrap_or_default();
        let values: Vec<String> = values.iter().map(|value| format!("<{value}>")).collect();
        name = format!("{name} {}", values.join(" ")).trim().to_owned();
    }
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.display()))
        .collect();
    let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let choices = argument.get_possible_values();
    let takes = argument.get_action().takes_values() && !argument.is_hide_possible_values_set();
    if takes && !choices.is_empty() {
        let choices: Vec<&str> = choices.iter().map(|choice| choice.get_name()).collect();
        let _ = write!(help, ": {}", choices.join(", "));
    }
    let [name, help] = [name, help].map(|text| text.replace('\n', " ").replace('|', "\\|"));
    let _ = writeln!(page, "| `{name}` | {} | {help} |", defaults.join(" "));
}

#[test]
fn the_page_of_the_command_lists_every_argument_and_nothing_else() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let wanted = page();
    if std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1") {
        fs::write(&path, wanted).expect("docs/cli.md can be written");
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
    assert!(
        found == wanted,
        "docs/cli.md is not what the code says, first at {differs:?}: \
         UPDATE_DOCS=1 cargo test -p forebay page writes it anew"
    );
}

#[test]
fn the_command_line_contradicts_itself_nowhere() {
    crate::Cli::command().debug_assert();
}
