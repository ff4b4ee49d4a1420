use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use super::call::{Call, Outcome};

/// What became of the calls of a load, or of a part of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The calls, in the order of their beginnings.
    pub calls: Vec<Call>,
}

impl Report {
    pub(super) fn new(mut calls: Vec<Call>) -> Self {
        calls.sort_by_key(|call| call.began);
        Self { calls }
    }

    /// The calls that began since `began`.
    #[must_use]
    pub fn since(&self, began: Instant) -> Self {
        self.filter(|call| call.began >= began)
    }

    /// The calls that ended since `began`: also those that a fault at that time could reach.
    #[must_use]
    pub fn ended_since(&self, began: Instant) -> Self {
        self.filter(|call| call.began + call.took >= began)
    }

    /// The calls of one tool service.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Self {
        self.filter(|call| call.tool.starts_with(namespace))
    }

    /// The calls of the other tool services.
    #[must_use]
    pub fn without(&self, namespace: &str) -> Self {
        self.filter(|call| !call.tool.starts_with(namespace))
    }

    /// The calls that policy does not permit, and that have a result.
    #[must_use]
    pub fn wrongly_allowed(&self) -> Self {
        self.filter(|call| !call.is_permitted && call.outcome == Outcome::Allowed)
    }

    /// The calls with a valid token that was not accepted, or that a policy denied although it
    /// permits them.
    #[must_use]
    pub fn wrongly_denied(&self) -> Self {
        self.filter(|call| {
            call.outcome == Outcome::Unauthenticated
                || call.is_permitted && call.outcome == Outcome::Denied
        })
    }

    /// The calls without the outcome that they should have.
    #[must_use]
    pub fn unexpected(&self) -> Self {
        self.filter(Call::is_unexpected)
    }

    /// The unexpected calls with an error that does not invite to retry.
    #[must_use]
    pub fn failed(&self) -> Self {
        self.filter(|call| call.is_unexpected() && !call.is_retryable())
    }

    /// The calls that policy denied.
    #[must_use]
    pub fn denied(&self) -> Self {
        self.filter(|call| call.outcome == Outcome::Denied)
    }

    /// The calls without a response: their connections broke.
    #[must_use]
    pub fn cut(&self) -> Self {
        self.filter(|call| matches!(call.outcome, Outcome::Failed { status: None, .. }))
    }

    fn filter(&self, keep: impl Fn(&Call) -> bool) -> Self {
        Self { calls: self.calls.iter().filter(|call| keep(call)).cloned().collect() }
    }

    /// Whether there is no call in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The time between the first and the last call that was answered with 503.
    #[must_use]
    pub fn unavailable_for(&self) -> Duration {
        let mut unavailable = self.calls.iter().filter(|call| call.is_unavailable());
        let first = unavailable.next();
        let last = unavailable.next_back().or(first);
        first.zip(last).map(|(first, last)| last.began - first.began).unwrap_or_default()
    }

    /// The time from `began` to the beginning of the last unexpected call.
    #[must_use]
    pub fn recovered_after(&self, began: Instant) -> Duration {
        let last = self.calls.iter().rfind(|call| call.is_unexpected());
        last.map(|call| call.began.saturating_duration_since(began)).unwrap_or_default()
    }

    /// The time within which this part of the calls ended.
    fn percentile(&self, percent: usize) -> Duration {
        let mut times: Vec<_> = self.calls.iter().map(|call| call.took).collect();
        times.sort();
        let index = times.len().saturating_sub(1) * percent / 100;
        times.get(index).copied().unwrap_or_default()
    }

    /// The calls with other outcomes than they should have, grouped, each with the request id of
    /// one.
    #[must_use]
    pub fn problems(&self) -> String {
        let mut groups: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for call in self.unexpected().calls {
            let what = match &call.outcome {
                Outcome::Failed { status, is_retryable, text } => {
                    let text: String = text.split("\"requestId\"").next().unwrap_or(text).into();
                    format!("{status:?} retryable: {is_retryable} {text}")
                }
                other => format!("{other:?}"),
            };
            let group = groups.entry(format!("{}: {what}", call.tool)).or_default();
            group.0 += 1;
            group.1 = call.request_id.unwrap_or_default();
        }
        let lines = groups.iter().map(|(what, (count, id))| format!("{count} x {what} [{id}]\n"));
        lines.collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |report: Self| report.calls.len();
        let [half, most, longest] =
            [50, 99, 100].map(|percent| self.percentile(percent).as_millis());
        write!(
            formatter,
            "{} calls, {} wrongly allowed, {} wrongly denied, {} failed ({} without a response), \
             {} retryable; 503 for {:.2} s; p50 {half} ms, p99 {most} ms, longest {longest} ms",
            self.calls.len(),
            count(self.wrongly_allowed()),
            count(self.wrongly_denied()),
            count(self.failed()),
            count(self.cut()),
            count(self.unexpected()) - count(self.failed()),
            self.unavailable_for().as_secs_f64(),
        )
    }
}
