//! The printed report.

use std::fmt;

use serde_json::{Value, json};

use crate::{load::Sample, overload::Overloaded, rows::Row};

/// The minimum throughput of a row, as a ratio to its baseline's.
const BUDGETS: [(&str, f64); 2] = [("all", 0.75), ("cache-hit", 3.0)];
/// The minimum goodput under overload, as a ratio to the peak throughput.
const GOODPUT_MIN: f64 = 0.8;

/// The measurements of one row.
pub(crate) struct Measured {
    name: &'static str,
    against: &'static str,
    /// Calls per second, of each round.
    rates: Vec<f64>,
    /// Processor time per call in microseconds, including the caller's share, of each round.
    processor: Vec<f64>,
    /// The latency of every call, in nanoseconds.
    latencies: Vec<u64>,
    /// Its throughput as a ratio to that of its baseline, which ran just before.
    ratios: Vec<f64>,
    /// The additional processor time per call, in microseconds.
    costs: Vec<f64>,
}

impl Measured {
    pub(crate) fn new(row: &Row) -> Self {
        Self {
            name: row.name,
            against: row.against,
            rates: Vec::new(),
            processor: Vec::new(),
            latencies: Vec::new(),
            ratios: Vec::new(),
            costs: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, sample: &Sample) {
        self.rates.push(sample.rate);
        self.processor.push(sample.processor);
        self.latencies.extend(&sample.latencies);
    }

    pub(crate) fn compare(&mut self, with: &Sample, without: &Sample) {
        self.ratios.push(with.rate / without.rate);
        self.costs.push(with.processor - without.processor);
    }

    pub(crate) fn has_samples(&self) -> bool {
        !self.rates.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        for figures in [&mut self.rates, &mut self.processor, &mut self.ratios, &mut self.costs] {
            figures.clear();
        }
        self.latencies.clear();
    }
}

/// The median and the quartiles.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let quartile =
            |quarters: usize| values.get(values.len().saturating_sub(1) * quarters / 4).copied();
        Some(Self { median: quartile(2)?, low: quartile(1)?, high: quartile(3)? })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "low": self.low, "high": self.high })
    }

    fn text(self, decimals: usize) -> String {
        let Self { median, low, high } = self;
        format!("{median:.decimals$} ({low:.decimals$} to {high:.decimals$})")
    }
}

/// The results of one run.
pub(crate) struct Report {
    pub(crate) connections: usize,
    pub(crate) rounds: usize,
    /// The edge has its own processor.
    pub(crate) divided: Vec<Measured>,
    /// Everything shares the processors.
    pub(crate) shared: Vec<Measured>,
    /// The edge has its own processor.
    pub(crate) overloaded: Option<Overloaded>,
}

impl Measured {
    fn json(&self) -> Value {
        let spread = |figures: &Vec<f64>| Spread::of(figures.clone()).map(Spread::json);
        json!({
            "name": self.name,
            "against": self.against,
            "calls_per_second": spread(&self.rates),
            "processor_us": spread(&self.processor),
            "p50_us": quantile(&self.latencies, 50),
            "p99_us": quantile(&self.latencies, 99),
            "throughput_ratio": spread(&self.ratios),
            "costs_us": spread(&self.costs),
        })
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median =
            |values: &[f64]| Spread::of(values.to_vec()).map_or(0.0, |spread| spread.median);
        write!(
            f,
            "  {:<16}{:>9.0}{:>8.0}{:>8.0}{:>8.0}",
            self.name,
            median(&self.rates),
            median(&self.processor),
            quantile(&self.latencies, 50),
            quantile(&self.latencies, 99),
        )?;
        if let (Some(throughput), Some(costs)) =
            (Spread::of(self.ratios.clone()), Spread::of(self.costs.clone()))
        {
            write!(f, "  {:<13}{:<24}{}", self.against, throughput.text(2), costs.text(0))?;
        }
        Ok(())
    }
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let rows = |measured: &[Measured]| measured.iter().map(Measured::json).collect::<Vec<_>>();
        json!({
            "connections": self.connections,
            "rounds": self.rounds,
            "divided": rows(&self.divided),
            "shared": rows(&self.shared),
            "overload": self.overloaded.as_ref().map(|overloaded| json!({
                "peak_per_second": overloaded.peak,
                "offered_per_second": overloaded.offered,
                "answered_per_second": overloaded.answered,
                "refused_per_second": overloaded.rejected,
                "goodput_ratio": overloaded.answered / overloaded.peak,
                "p99_us": quantile(&overloaded.latencies, 99),
                "metadata_p99_us": quantile(&overloaded.metadata, 99),
            })),
        })
    }
}

fn verdict(ratio: f64, min: f64) -> &'static str {
    if ratio >= min { "met" } else { "NOT met" }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, rounds, divided, shared, overloaded } = self;
        writeln!(
            f,
            "{rounds} rounds with {connections} connections; ratios are medians with quartiles\n"
        )?;
        writeln!(
            f,
            "{:<18}{:>9}{:>8}{:>8}{:>8}  {:<13}{:<24}extra cpu µs per call",
            "", "calls/s", "cpu µs", "p50 µs", "p99 µs", "against", "throughput"
        )?;
        let sections =
            [("the edge has its own processor", divided), ("all share the processors", shared)];
        for (how, rows) in sections.iter().filter(|(_, rows)| !rows.is_empty()) {
            writeln!(f, "{how}")?;
            for measured in rows.iter() {
                writeln!(f, "{measured}")?;
            }
        }
        writeln!(f)?;
        for (name, min) in BUDGETS {
            let row = divided.iter().chain(shared).find(|measured| measured.name == name);
            if let Some(ratio) = row.and_then(|row| Spread::of(row.ratios.clone())) {
                let verdict = verdict(ratio.median, min);
                writeln!(f, "{name}: at least {min} of the baseline's throughput: {verdict}")?;
            }
        }
        if let Some(Overloaded { peak, offered, answered, rejected, latencies, metadata }) =
            overloaded
        {
            let (ratio, p99) = (answered / peak, quantile(latencies, 99) / 1000.0);
            let metadata = quantile(metadata, 99) / 1000.0;
            let verdict = verdict(ratio, GOODPUT_MIN);
            writeln!(
                f,
                "overload: of {offered:.0} calls/s {answered:.0} are answered (p99 {p99:.1} ms) and {rejected:.0} \
                rejected; {ratio:.2} of the {peak:.0} calls/s at the peak, at least {GOODPUT_MIN}: {verdict}; \
                 metadata p99 {metadata:.1} ms"
            )?;
        }
        Ok(())
    }
}

/// A quantile, in hundredths, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "latencies are small")]
fn quantile(latencies: &[u64], hundredths: usize) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let index = sorted.len().saturating_sub(1) * hundredths / 100;
    sorted.get(index).copied().unwrap_or_default() as f64 / 1000.0
}
