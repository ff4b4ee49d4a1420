//! Metrics, defined in one table per crate by [`metric_table!`](crate::metric_table).
//!
//! A table is the only place with the names, labels, units and meanings of a crate's metrics. Code
//! uses the constants of the table; `# HELP` of a scrape and the reference page come from it too.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::{Mutex, PoisonError},
};

pub use metrics::{Counter, Gauge, Histogram, SharedString, Unit};
use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, with_recorder};

/// The units of the metrics that were described: Prometheus's recorder does not return them.
static UNITS: Mutex<BTreeMap<&'static str, Unit>> = Mutex::new(BTreeMap::new());
static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that only grows, until the process restarts.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// How often values fell into each of a few ranges.
    Histogram,
}

/// A row of a table of metrics.
#[derive(Clone, Copy, Debug)]
pub struct MetricInfo {
    /// The name, which ends with the unit, and for a counter with `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// The unit of its values.
    pub unit: Unit,
    /// What it measures.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

/// A handle by which values are recorded: [`Counter`], [`Gauge`] or [`Histogram`].
pub trait Instrument: Sized {
    /// Its kind.
    const KIND: MetricKind;
    /// Registers a metric with the current recorder.
    fn register(recorder: &dyn Recorder, key: &Key) -> Self;
}

impl Instrument for Counter {
    const KIND: MetricKind = MetricKind::Counter;

    fn register(recorder: &dyn Recorder, key: &Key) -> Self {
        recorder.register_counter(key, &METADATA)
    }
}

impl Instrument for Gauge {
    const KIND: MetricKind = MetricKind::Gauge;

    fn register(recorder: &dyn Recorder, key: &Key) -> Self {
        recorder.register_gauge(key, &METADATA)
    }
}

impl Instrument for Histogram {
    const KIND: MetricKind = MetricKind::Histogram;

    fn register(recorder: &dyn Recorder, key: &Key) -> Self {
        recorder.register_histogram(key, &METADATA)
    }
}

/// A metric with `LABELS` labels.
#[derive(Clone, Copy, Debug)]
pub struct Metric<I, const LABELS: usize> {
    info: MetricInfo,
    instrument: PhantomData<I>,
}

impl<I: Instrument, const LABELS: usize> Metric<I, LABELS> {
    /// A metric. Only [`metric_table!`](crate::metric_table) defines metrics.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(
        name: &'static str,
        unit: Unit,
        help: &'static str,
        labels: &'static [&'static str; LABELS],
    ) -> Self {
        let help = help.trim_ascii_start();
        let info = MetricInfo { name, kind: I::KIND, unit, help, labels };
        Self { info, instrument: PhantomData }
    }

    /// Its row in the table.
    #[must_use]
    pub const fn info(&self) -> MetricInfo {
        self.info
    }

    /// The metric with these values of its labels, in the order of the table.
    #[must_use]
    pub fn with(&self, values: [SharedString; LABELS]) -> I {
        let labels = self.info.labels.iter().zip(values);
        let labels: Vec<_> = labels.map(|(name, value)| Label::new(*name, value)).collect();
        let key = Key::from_parts(self.info.name, labels);
        with_recorder(|recorder| I::register(recorder, &key))
    }
}

impl<const LABELS: usize> Metric<Counter, LABELS> {
    /// Counts from zero for each of these values of its labels. A counter that appears with its
    /// first event has not increased, as Prometheus sees it.
    pub fn start_at_zero(&self, values: impl IntoIterator<Item = [SharedString; LABELS]>) {
        values.into_iter().for_each(|values| drop(self.with(values)));
    }
}

impl<I: Instrument> Metric<I, 0> {
    /// The metric, which has no labels.
    #[must_use]
    pub fn get(&self) -> I {
        self.with([])
    }
}

/// Describes the metrics of a table to the current recorder. Counters and histograms without labels
/// start at zero, so that a scrape has them before their first event.
pub fn describe(table: &[MetricInfo]) {
    let mut units = UNITS.lock().unwrap_or_else(PoisonError::into_inner);
    units.extend(table.iter().map(|info| (info.name, info.unit)));
    drop(units);
    with_recorder(|recorder| {
        for &MetricInfo { name, kind, unit, help, labels } in table {
            let (key, name, unit) = (Key::from_static_name(name), KeyName::from(name), Some(unit));
            match kind {
                MetricKind::Counter => recorder.describe_counter(name, unit, help.into()),
                MetricKind::Gauge => recorder.describe_gauge(name, unit, help.into()),
                MetricKind::Histogram => recorder.describe_histogram(name, unit, help.into()),
            }
            match kind {
                MetricKind::Counter if labels.is_empty() => {
                    drop(Counter::register(recorder, &key));
                }
                MetricKind::Histogram if labels.is_empty() => {
                    drop(Histogram::register(recorder, &key));
                }
                _ => {}
            }
        }
    });
}

/// The unit of a metric that was described, if it has one.
pub(crate) fn unit_of(name: &str) -> Option<Unit> {
    UNITS.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
}

/// Defines the metrics of a crate: a constant for each, and the table `METRICS` of all of them.
///
/// A row is `CONSTANT: Kind<Unit> = "name" ["label", …];`, and its documentation is the help text.
/// Kinds are [`Counter`], [`Gauge`] and [`Histogram`]; units are those of [`Unit`].
///
/// ```
/// drawbridge_runtime::metric_table! {
///     /// Venues that were found.
///     VENUES_FOUND: Counter<Count> = "venues_found_total" ["city"];
///     /// How long a search took.
///     SEARCH_DURATION: Histogram<Seconds> = "venues_search_duration_seconds" [];
/// }
///
/// VENUES_FOUND.with(["Oslo".into()]).increment(3);
/// SEARCH_DURATION.get().record(0.2);
/// assert_eq!(METRICS[0].help, "Venues that were found.");
/// ```
#[macro_export]
macro_rules! metric_table {
    ($(
        $(#[doc = $help:literal])+
        $metric:ident: $kind:ident<$unit:ident> = $name:literal [$($label:literal),*];
    )+) => {
        $(
            $(#[doc = $help])+
            pub(crate) const $metric: $crate::metric::Metric<
                $crate::metric::$kind,
                { <[&str]>::len(&[$($label),*]) },
            > = $crate::metric::Metric::new(
                $name,
                $crate::metric::Unit::$unit,
                ::core::concat!($($help),+),
                &[$($label),*],
            );
        )+

        /// The metrics of this crate.
        pub const METRICS: &[$crate::metric::MetricInfo] = &[$($metric.info()),+];
    };
}
