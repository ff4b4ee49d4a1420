//! The results of one run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{load::Sample, micro::Step, payload::Payload};

/// The rounds of one path.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    /// Calls per second, by round.
    rates: Vec<f64>,
    /// Processor time per call in microseconds, including the caller's share, by round.
    processor: Vec<f64>,
    /// The same by thread name, by round.
    parts: Vec<BTreeMap<String, f64>>,
    /// The latency of every call with all connections, in nanoseconds.
    busy: Vec<u64>,
    /// The latency of every call with one connection, in nanoseconds.
    single: Vec<u64>,
    /// Their medians, by round.
    single_medians: Vec<f64>,
}

impl Measured {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            rates: Vec::new(),
            processor: Vec::new(),
            parts: Vec::new(),
            busy: Vec::new(),
            single: Vec::new(),
            single_medians: Vec::new(),
        }
    }

    /// Adds a round with all connections and the processor time of its threads.
    pub(crate) fn add(&mut self, busy: &Sample, times: impl Iterator<Item = (String, Duration)>) {
        let calls = f64::from(u32::try_from(busy.latencies.len()).unwrap_or(u32::MAX));
        self.parts
            .push(times.map(|(name, time)| (name, time.as_secs_f64() * 1e6 / calls)).collect());
        self.rates.push(busy.rate);
        self.processor.push(busy.processor);
        self.busy.extend(&busy.latencies);
    }

    /// Adds a round with one connection.
    pub(crate) fn add_single(&mut self, mut single: Sample) {
        single.latencies.sort_unstable();
        self.single_medians.push(quantile(&single.latencies, 0.5));
        self.single.extend(single.latencies);
    }

    /// Processor time per call in microseconds by thread name, the largest first: the median of the
    /// rounds.
    pub(crate) fn parts(&self) -> Vec<(&str, f64)> {
        let names: BTreeSet<_> = self.parts.iter().flat_map(BTreeMap::keys).collect();
        let of = |name: &String| {
            median(self.parts.iter().filter_map(|parts| parts.get(name)).copied().collect())
        };
        let mut parts: Vec<_> = names.into_iter().map(|name| (name.as_str(), of(name))).collect();
        parts.sort_by(|one, other| other.1.total_cmp(&one.1));
        parts
    }

    pub(crate) fn json(&self) -> Value {
        let (mut busy, mut single) = (self.busy.clone(), self.single.clone());
        busy.sort_unstable();
        single.sort_unstable();
        json!({
            "name": self.name,
            "calls_per_second": median(self.rates.clone()).round(),
            "processor_us": median(self.processor.clone()),
            "processor_us_by_thread": self.parts().into_iter().collect::<BTreeMap<_, _>>(),
            "busy_p50_us": quantile(&busy, 0.5),
            "busy_p99_us": quantile(&busy, 0.99),
            "alone_p50_us": quantile(&single, 0.5),
            "alone_p99_us": quantile(&single, 0.99),
        })
    }
}

/// The median, minimum and maximum of the rounds.
pub(crate) type Spread = (f64, f64, f64);

/// The results of one run.
pub(crate) struct Report {
    pub(crate) connections: usize,
    pub(crate) rounds: usize,
    pub(crate) measured: Vec<Measured>,
    /// The HTTP server has its own processor.
    pub(crate) divided: Vec<Measured>,
    pub(crate) micro: Vec<Step>,
    pub(crate) payloads: Vec<Payload>,
}

/// Ratios of the first path's throughput to the second's.
const RATIOS: [(&str, &str); 10] = [
    ("edge", "relay"),
    ("edge", "relay-tool"),
    ("edge", "rmcp"),
    ("edge-session", "edge"),
    ("edge-2026", "edge"),
    ("edge", "edge-asks"),
    ("verify-warm", "verify-cold"),
    ("relay", "echo"),
    ("relay-tool", "relay"),
    ("rmcp", "echo"),
];
/// Differences of the first path's median latency to the second's.
const ADDED: [(&str, &str); 5] = [
    ("edge", "grpc-tool"),
    ("edge-session", "edge"),
    ("edge", "grpc"),
    ("edge", "relay"),
    ("grpc-tool", "grpc"),
];

/// Compares two paths round by round.
fn compare(
    measured: &[Measured],
    pair: (&str, &str),
    of: impl Fn(&Measured) -> &[f64],
    how: impl Fn(f64, f64) -> f64,
) -> Option<Spread> {
    let find = |name: &str| measured.iter().find(|measured| measured.name == name);
    let (one, other) = (find(pair.0)?, find(pair.1)?);
    let mut all: Vec<_> =
        of(one).iter().zip(of(other)).map(|(one, other)| how(*one, *other)).collect();
    all.sort_by(f64::total_cmp);
    Some((median(all.clone()), *all.first()?, *all.last()?))
}

fn all<'a>(
    pairs: &'a [(&'a str, &'a str)],
    between: &'a str,
    compare: impl Fn((&str, &str)) -> Option<Spread> + 'a,
) -> impl Iterator<Item = (String, Spread)> + 'a {
    pairs
        .iter()
        .filter_map(move |pair| Some((format!("{}{between}{}", pair.0, pair.1), compare(*pair)?)))
}

/// The ratios of throughput.
pub(crate) fn ratios(measured: &[Measured]) -> impl Iterator<Item = (String, Spread)> {
    all(&RATIOS, "/", |pair| compare(measured, pair, |one| &one.rates, |one, other| one / other))
}

/// The ratios of processor time.
pub(crate) fn processor(measured: &[Measured]) -> impl Iterator<Item = (String, Spread)> {
    all(&RATIOS, "/", |pair| {
        compare(measured, pair, |one| &one.processor, |one, other| other / one)
    })
}

/// The added median latencies, in microseconds.
pub(crate) fn added(measured: &[Measured]) -> impl Iterator<Item = (String, Spread)> {
    all(&ADDED, "-", |pair| {
        compare(measured, pair, |one| &one.single_medians, |one, other| one - other)
    })
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let spread = |(name, (median, min, max)): (String, Spread)| {
            (name, json!({ "median": median, "min": min, "max": max }))
        };
        let paths = |measured: &[Measured]| measured.iter().map(Measured::json).collect::<Vec<_>>();
        let payload = |payload: &Payload| {
            json!({
                "bytes": payload.bytes,
                "edge_us": payload.edge.latency,
                "relay_us": payload.relay.latency,
                "edge_processor_us": payload.edge.processor,
                "relay_processor_us": payload.relay.processor,
                "ratio": payload.ratio,
            })
        };
        json!({
            "connections": self.connections,
            "rounds": self.rounds,
            "paths": paths(&self.measured),
            "divided": paths(&self.divided),
            "throughput_ratios": ratios(&self.measured).map(spread).collect::<serde_json::Map<_, _>>(),
            "divided_ratios": ratios(&self.divided).map(spread).collect::<serde_json::Map<_, _>>(),
            "processor_ratios": processor(&self.measured).map(spread).collect::<serde_json::Map<_, _>>(),
            "added_latency_us": added(&self.measured).map(spread).collect::<serde_json::Map<_, _>>(),
            "payloads": self.payloads.iter().map(payload).collect::<Vec<_>>(),
            "steps_ns": self.micro.iter()
                .map(|step| (step.name.to_owned(), json!(step.nanoseconds.round())))
                .collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// A quantile of sorted nanoseconds, in microseconds.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and latencies are small, and an index within the list"
)]
pub(crate) fn quantile(sorted: &[u64], quantile: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1) as f64 * quantile).round() as usize;
    sorted.get(index).copied().unwrap_or_default() as f64 / 1000.0
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
