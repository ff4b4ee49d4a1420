//! Properties of guards on any text, for the fuzz targets.

#![expect(clippy::expect_used, reason = "a fuzz target panics if it cannot start")]

use std::borrow::Cow;

use drawbridge_config::edge::{GUARD_BYTES_MIN, PatternClass};
use serde::de::IgnoredAny;

use super::{
    GuardCounts, GuardKind, content::GuardPass, json::guard_text, redact::Redactor, size::SizeCap,
    strip::strip,
};

/// Guards with all built-in patterns.
#[derive(Debug)]
pub(crate) struct FuzzGuards([GuardKind; 2]);

impl FuzzGuards {
    pub(crate) fn new() -> Self {
        let redactor = Redactor::new(
            &[PatternClass::Secrets, PatternClass::Cards, PatternClass::Iban, PatternClass::Email],
            &[],
        );
        Self([GuardKind::Strip, GuardKind::Redact(redactor.expect("the built-in patterns"))])
    }

    /// Asserts that guards are idempotent, that a capped text fits its cap, and that JSON stays
    /// valid.
    pub(crate) fn assert(&self, text: &str) {
        let stripped = strip(text);
        assert!(matches!(strip(&stripped), Cow::Borrowed(_)), "stripped twice: {text:?}");
        let mut counts = GuardCounts::default();
        for kind in &self.0 {
            let once = kind.filter(None, &stripped, &mut counts);
            assert_eq!(kind.filter(None, &once, &mut counts), once, "guarded twice: {text:?}");
        }
        let cap = usize::try_from(GUARD_BYTES_MIN).expect("a small number");
        assert!(SizeCap(cap).text(text).len() <= cap, "longer than its cap: {text:?}");

        let is_json = |text: &str| serde_json::from_str::<IgnoredAny>(text).is_ok();
        let mut guarded = text.to_owned();
        for kind in &self.0 {
            guard_text(
                &mut guarded,
                &mut GuardPass { kind, counts: &mut counts, is_changed: false },
            );
        }
        assert!(
            !text.starts_with(['{', '[']) || !is_json(text) || is_json(&guarded),
            "not valid JSON any more: {text}"
        );
    }
}
