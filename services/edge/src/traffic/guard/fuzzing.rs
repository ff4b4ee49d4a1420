//! What holds of any text that is guarded, for the fuzz targets.

#![expect(clippy::expect_used, reason = "a fuzz target that cannot start says so")]

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::{
    Kind, Tally,
    content::Working,
    json::guard_text,
    redact::{Class, Redactor},
    size::{BYTES_MIN, Cap},
    strip::strip,
};

/// Guards that look for all there is.
#[derive(Debug)]
pub(crate) struct Guarding([Kind; 2]);

impl Guarding {
    pub(crate) fn new() -> Self {
        let redactor =
            Redactor::new(&[Class::Secrets, Class::Cards, Class::Iban, Class::Email], &[]);
        Self([Kind::Strip, Kind::Redact(redactor.expect("the built-in patterns"))])
    }

    /// Asserts that a text is guarded once and for all, is no longer than its cap, and that JSON stays JSON.
    pub(crate) fn assert(&self, text: &str) {
        let stripped = strip(text);
        assert!(matches!(strip(&stripped), Cow::Borrowed(_)), "stripped twice: {text:?}");
        let mut tally = Tally::default();
        for kind in &self.0 {
            let once = kind.check(None, &stripped, &mut tally);
            assert_eq!(kind.check(None, &once, &mut tally), once, "guarded twice: {text:?}");
        }
        assert!(Cap(BYTES_MIN).text(text).len() <= BYTES_MIN, "cut: {text:?}");

        let is_json = |text: &str| serde_json::from_str::<IgnoredAny>(text).is_ok();
        let mut guarded = text.to_owned();
        for kind in &self.0 {
            guard_text(&mut guarded, &mut Working { kind, tally: &mut tally, changed: false });
        }
        assert!(
            !text.starts_with(['{', '[']) || !is_json(text) || is_json(&guarded),
            "no JSON any more: {text}"
        );
    }
}
