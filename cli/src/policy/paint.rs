//! Colours. `anstream` removes them without a terminal.

fn painted(text: &str, code: u8) -> String {
    format!("\x1b[{code}m{text}\x1b[0m")
}

pub(super) fn good(text: &str) -> String {
    painted(text, 32)
}

pub(super) fn bad(text: &str) -> String {
    painted(text, 31)
}

pub(super) fn warning(text: &str) -> String {
    painted(text, 33)
}

pub(super) fn strong(text: &str) -> String {
    painted(text, 1)
}
