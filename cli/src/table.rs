//! Tables for the terminal.

use std::io::IsTerminal as _;

use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};

/// The width of a table without a terminal, in columns.
const COLUMNS: u16 = 100;

/// Creates a table no wider than the terminal, with colors only if the terminal shows them.
pub(crate) fn new() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        table.force_no_tty();
    }
    table.set_width(columns());
    table
}

/// The maximum width of a table, in columns.
pub(crate) fn columns() -> u16 {
    let from_terminal = std::io::stdout().is_terminal().then(|| Table::new().width()).flatten();
    let from_env = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| *columns > 0);
    from_terminal.or_else(from_env).unwrap_or(COLUMNS)
}
