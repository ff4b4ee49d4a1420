//! Tables for people.

use std::io::IsTerminal as _;

use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};

/// How wide a table may be where no terminal says so, in columns.
const COLUMNS: u16 = 100;

/// A table that is no wider than the terminal, with colors only where one shows them.
pub(crate) fn new() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        table.force_no_tty();
    }
    table.set_width(columns());
    table
}

/// How wide a table may be, in columns.
pub(crate) fn columns() -> u16 {
    let of_terminal = std::io::stdout().is_terminal().then(|| Table::new().width()).flatten();
    let said = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| *columns > 0);
    of_terminal.or_else(said).unwrap_or(COLUMNS)
}
