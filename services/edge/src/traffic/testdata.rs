//! Reads config files for tests.

use drawbridge_config::{ConfigText, Mistakes, edge::EdgeFile};

/// What `lower` makes of this config file, or its mistakes.
pub(crate) fn read<T>(
    text: &str,
    lower: impl FnOnce(&EdgeFile, &mut Mistakes<'_>) -> T,
) -> Result<T, String> {
    let text = ConfigText::new("edge.toml", text);
    let mut mistakes = Mistakes::new(&text);
    let file = mistakes.parse::<EdgeFile>();
    let lowered = file.map(|file| lower(&file, &mut mistakes));
    mistakes.finish(lowered).map_err(|error| error.to_string())
}
