//! What is printed.

use std::fmt;

use serde_json::{Value, json};

use crate::{load::Sample, micro::Step};

/// The rounds of one path.
pub(crate) struct Measured {
    name: &'static str,
    /// Calls per second, by round.
    rates: Vec<f64>,
    /// Microseconds of processor time a call, the caller's share too, by round.
    processor: Vec<f64>,
    /// Nanoseconds of every call with all connections.
    busy: Vec<u64>,
    /// Nanoseconds of every call with one connection.
    alone: Vec<u64>,
    /// Their medians, by round.
    alone_medians: Vec<f64>,
}

impl Measured {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            rates: Vec::new(),
            processor: Vec::new(),
            busy: Vec::new(),
            alone: Vec::new(),
            alone_medians: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, busy: Sample, mut alone: Sample) {
        self.rates.push(busy.rate);
        self.processor.push(busy.processor);
        self.busy.extend(busy.latencies);
        alone.latencies.sort_unstable();
        self.alone_medians.push(quantile(&alone.latencies, 0.5));
        self.alone.extend(alone.latencies);
    }

    fn json(&self) -> Value {
        let (mut busy, mut alone) = (self.busy.clone(), self.alone.clone());
        busy.sort_unstable();
        alone.sort_unstable();
        json!({
            "name": self.name,
            "calls_per_second": median(self.rates.clone()).round(),
            "processor_us": median(self.processor.clone()),
            "busy_p50_us": quantile(&busy, 0.5),
            "busy_p99_us": quantile(&busy, 0.99),
            "alone_p50_us": quantile(&alone, 0.5),
            "alone_p99_us": quantile(&alone, 0.99),
        })
    }
}

/// All that one run has measured.
pub(crate) struct Report {
    pub(crate) connections: usize,
    pub(crate) rounds: usize,
    pub(crate) measured: Vec<Measured>,
    pub(crate) micro: Vec<Step>,
}

/// Throughput of the first over that of the second.
const RATIOS: [(&str, &str); 9] = [
    ("edge", "relay"),
    ("edge", "relay-tool"),
    ("edge", "rmcp"),
    ("edge-2026", "edge"),
    ("edge", "edge-asks"),
    ("verify-warm", "verify-cold"),
    ("relay", "echo"),
    ("relay-tool", "relay"),
    ("rmcp", "echo"),
];
/// Median latency of the first without that of the second.
const ADDED: [(&str, &str); 4] =
    [("edge", "grpc-tool"), ("edge", "grpc"), ("edge", "relay"), ("grpc-tool", "grpc")];

impl Report {
    fn find(&self, name: &str) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.name == name)
    }

    /// Compares two paths round by round: the median, the least and the most.
    fn compare(
        &self,
        pair: (&str, &str),
        of: impl Fn(&Measured) -> &[f64],
        how: impl Fn(f64, f64) -> f64,
    ) -> Option<(f64, f64, f64)> {
        let (one, other) = (self.find(pair.0)?, self.find(pair.1)?);
        let mut all: Vec<_> = of(one).iter().zip(of(other)).map(|(one, other)| how(*one, *other)).collect();
        all.sort_by(f64::total_cmp);
        Some((median(all.clone()), *all.first()?, *all.last()?))
    }

    fn ratios(&self) -> impl Iterator<Item = (String, (f64, f64, f64))> {
        RATIOS.into_iter().filter_map(|pair| {
            let name = format!("{}/{}", pair.0, pair.1);
            Some((name, self.compare(pair, |measured| &measured.rates, |one, other| one / other)?))
        })
    }

    fn processor(&self) -> impl Iterator<Item = (String, (f64, f64, f64))> {
        RATIOS.into_iter().filter_map(|pair| {
            let name = format!("{}/{}", pair.0, pair.1);
            Some((name, self.compare(pair, |measured| &measured.processor, |one, other| other / one)?))
        })
    }

    fn added(&self) -> impl Iterator<Item = (String, (f64, f64, f64))> {
        ADDED.into_iter().filter_map(|pair| {
            let name = format!("{}-{}", pair.0, pair.1);
            Some((name, self.compare(pair, |measured| &measured.alone_medians, |one, other| one - other)?))
        })
    }

    pub(crate) fn json(&self) -> Value {
        let spread = |(name, (median, min, max)): (String, (f64, f64, f64))| {
            (name, json!({ "median": median, "min": min, "max": max }))
        };
        json!({
            "connections": self.connections,
            "rounds": self.rounds,
            "paths": self.measured.iter().map(Measured::json).collect::<Vec<_>>(),
            "throughput_ratios": self.ratios().map(spread).collect::<serde_json::Map<_, _>>(),
            "processor_ratios": self.processor().map(spread).collect::<serde_json::Map<_, _>>(),
            "added_latency_us": self.added().map(spread).collect::<serde_json::Map<_, _>>(),
            "steps_ns": self.micro.iter()
                .map(|step| (step.name.to_owned(), json!(step.nanoseconds.round())))
                .collect::<serde_json::Map<_, _>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, rounds, .. } = self;
        writeln!(
            f,
            "{rounds} rounds; with {connections} connections, and alone; microseconds of processor time a call and of latency\n"
        )?;
        writeln!(
            f,
            "{:<12} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10}",
            "", "calls/s", "cpu", "p50", "p99", "alone p50", "p99"
        )?;
        for measured in &self.measured {
            let json = measured.json();
            let number = |name: &str| json[name].as_f64().unwrap_or_default();
            writeln!(
                f,
                "{:<12} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>10.0} {:>10.0}",
                measured.name,
                number("calls_per_second"),
                number("processor_us"),
                number("busy_p50_us"),
                number("busy_p99_us"),
                number("alone_p50_us"),
                number("alone_p99_us"),
            )?;
        }
        writeln!(f, "\nthroughput, as a ratio: median of the rounds, least and most")?;
        for (name, (median, min, max)) in self.ratios() {
            writeln!(f, "{name:<22} {median:>6.2}  {min:.2} to {max:.2}")?;
        }
        writeln!(f, "\nthe same by processor time, which a busy machine does not change much")?;
        for (name, (median, min, max)) in self.processor() {
            writeln!(f, "{name:<22} {median:>6.2}  {min:.2} to {max:.2}")?;
        }
        writeln!(f, "\nadded to the median latency of a call alone, in microseconds")?;
        for (name, (median, min, max)) in self.added() {
            writeln!(f, "{name:<22} {median:>6.0}  {min:.0} to {max:.0}")?;
        }
        if !self.micro.is_empty() {
            writeln!(f, "\nsteps, in nanoseconds")?;
        }
        for step in &self.micro {
            writeln!(f, "{:<40} {:>8.0}", step.name, step.nanoseconds)?;
        }
        Ok(())
    }
}

/// A quantile of sorted nanoseconds, in microseconds.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and latencies are small, and an index within the list"
)]
fn quantile(sorted: &[u64], quantile: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1) as f64 * quantile).round() as usize;
    sorted.get(index).copied().unwrap_or_default() as f64 / 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
