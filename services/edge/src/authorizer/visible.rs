//! Which items of a list a caller may see, and what is known of it from earlier lists.

use std::{
    collections::HashSet,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_proto::auth::v1 as pb;
use drawbridge_runtime::RequestId;

use super::{
    Grant,
    decision_key::{DECISION_TTL_MAX, DecisionKey},
    epochs::{NO_EPOCH, Period},
};

/// The part of auth's response that concerns all items of a list.
#[derive(Clone, Debug)]
pub(crate) struct FilterDecision {
    pub(crate) principal: Arc<pb::Principal>,
    pub(crate) policy_revision: Arc<str>,
    pub(crate) epoch: u64,
    /// The request in which auth filtered the items.
    pub(crate) decided_in: RequestId,
}

impl FilterDecision {
    pub(crate) fn grant(&self) -> Grant {
        Grant { principal: Arc::clone(&self.principal), epoch: NO_EPOCH, expires_at: None }
    }
}

/// Auth's response about some items.
#[derive(Debug)]
pub(crate) struct Visible {
    /// The names of those that the caller may see.
    pub(crate) names: HashSet<String>,
    pub(crate) decision: FilterDecision,
    /// How long the response may be used for further lists.
    reusable_for: Duration,
}

impl Visible {
    pub(super) fn new(visible: pb::Visible, decided_in: RequestId) -> Self {
        let reusable_for = visible.reusable_for.and_then(|ttl| ttl.try_into().ok());
        let decision = FilterDecision {
            principal: Arc::new(visible.principal.unwrap_or_default()),
            policy_revision: visible.policy_revision.into(),
            epoch: visible.epoch,
            decided_in,
        };
        let names = visible.names.into_iter().collect();
        Self { names, decision, reusable_for: reusable_for.unwrap_or_default() }
    }
}

/// The items of a list that a caller may see: for those that auth was asked about, which are
/// consecutive ones of the list.
#[derive(Clone, Debug)]
pub(crate) struct VisibleItems {
    key: DecisionKey,
    /// The period in which auth was asked.
    period: Period,
    expires_at: Instant,
    /// Absent: auth was not asked.
    decision: Option<FilterDecision>,
    /// The items that auth was asked about, by their places in the list.
    decided: Range<usize>,
    /// One bit for each of them.
    bits: Vec<u64>,
}

impl VisibleItems {
    /// Nothing is known. Auth is asked in this period.
    pub(super) fn unknown(key: DecisionKey, period: Period) -> Self {
        let expires_at = Instant::now() + DECISION_TTL_MAX;
        Self { key, period, expires_at, decision: None, decided: 0..0, bits: Vec::new() }
    }

    /// These, for a page that begins at `start`.
    pub(crate) fn starting_at(self, start: usize) -> Self {
        if self.decision.is_some() && self.decided.start <= start && start <= self.decided.end {
            return self;
        }
        let Self { key, period, .. } = self;
        Self { decided: start..start, ..Self::unknown(key, period) }
    }

    /// The first item that auth was not asked about.
    pub(crate) fn end(&self) -> usize {
        self.decided.end
    }

    /// Auth's response, if it was asked.
    pub(crate) fn decision(&self) -> Option<&FilterDecision> {
        self.decision.as_ref()
    }

    /// The visible items from `start` on.
    pub(crate) fn visible_from(&self, start: usize) -> impl Iterator<Item = usize> + '_ {
        let first = self.decided.start;
        (start.max(first)..self.decided.end).filter(move |place| {
            let number = place - first;
            (self.bits[number / 64] >> (number % 64)) & 1 == 1
        })
    }

    /// Adds auth's response about the next items: whether each of them is visible.
    pub(crate) fn extend(&mut self, visible: &Visible, next: impl Iterator<Item = bool>) {
        for is_visible in next {
            let number = self.decided.len();
            if number.is_multiple_of(64) {
                self.bits.push(0);
            }
            self.bits[number / 64] |= u64::from(is_visible) << (number % 64);
            self.decided.end += 1;
        }
        let expires_at = Instant::now() + visible.reusable_for;
        self.expires_at = self.expires_at.min(expires_at);
        self.decision = Some(visible.decision.clone());
    }

    pub(super) fn key(&self) -> DecisionKey {
        self.key
    }

    /// The epoch of the decisions.
    pub(super) fn epoch(&self) -> u64 {
        self.decision.as_ref().map_or(NO_EPOCH, |decision| decision.epoch)
    }

    pub(super) fn is_usable(&self, period: Period, now: Instant) -> bool {
        self.period == period && self.expires_at > now
    }

    /// How much memory it takes, in bytes. Texts of the caller are estimated.
    pub(super) fn size(&self) -> u32 {
        const OTHER: usize = size_of::<VisibleItems>() + 512;
        (OTHER + size_of_val(self.bits.as_slice())).try_into().unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> VisibleItems {
        let operation = pb::Operation::default();
        let key = DecisionKey::new(&"token".into(), "https://edge.example/mcp", &operation);
        VisibleItems::unknown(key, Period::FIRST)
    }

    fn visible(ttl: Duration) -> Visible {
        let reusable_for = Some(ttl.try_into().unwrap());
        let visible = pb::Visible { epoch: 7, reusable_for, ..Default::default() };
        Visible::new(visible, RequestId::generate())
    }

    #[test]
    fn an_item_is_visible_only_if_auth_was_asked_about_it_and_named_it() {
        let mut items = nothing().starting_at(100);
        assert!(items.decision().is_none());
        let is_visible = |place: &usize| place.is_multiple_of(3);
        for places in [100..165, 165..300] {
            items.extend(&visible(DECISION_TTL_MAX), places.map(|place| is_visible(&place)));
        }
        let expected: Vec<_> = (100..300).filter(is_visible).collect();
        assert_eq!(items.visible_from(100).collect::<Vec<_>>(), expected);
        assert_eq!(items.visible_from(298).collect::<Vec<_>>(), [] as [usize; 0]);
        assert_eq!(items.visible_from(0).next(), Some(102));
        assert_eq!(items.end(), 300);
    }

    #[test]
    fn a_page_elsewhere_in_the_list_does_not_use_what_is_known() {
        let mut items = nothing().starting_at(100);
        items.extend(&visible(DECISION_TTL_MAX), [true; 50].into_iter());
        assert_eq!(items.clone().starting_at(150).end(), 150);
        assert!(items.clone().starting_at(150).decision().is_some());
        for start in [99, 151] {
            let elsewhere = items.clone().starting_at(start);
            assert!(elsewhere.decision().is_none());
            assert_eq!((elsewhere.end(), elsewhere.visible_from(0).next()), (start, None));
        }
    }

    #[test]
    fn what_is_known_expires_with_its_first_part() {
        let mut items = nothing();
        items.extend(&visible(Duration::from_secs(1)), [true].into_iter());
        items.extend(&visible(Duration::from_secs(5)), [true].into_iter());
        let now = Instant::now();
        assert!(items.is_usable(Period::FIRST, now));
        assert!(!items.is_usable(Period::FIRST, now + Duration::from_secs(2)));
        items.extend(&Visible::new(pb::Visible::default(), RequestId::generate()), [].into_iter());
        assert!(!items.is_usable(Period::FIRST, Instant::now()), "auth permits no reuse");
    }
}
