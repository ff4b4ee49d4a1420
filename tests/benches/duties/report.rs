//! What is printed.

use std::fmt;

use serde_json::{Value, json};

use crate::{load::Sample, overload::Overloaded, rows::Row};

/// The least throughput of a row, as a ratio to that of the row without.
const BUDGETS: [(&str, f64); 2] = [("all", 0.75), ("cache-hit", 3.0)];
/// The same under overload, as a ratio to that at the peak.
const GOODPUT_MIN: f64 = 0.8;

/// What was measured of one row.
pub(crate) struct Measured {
    name: &'static str,
    against: &'static str,
    /// Calls per second, each time.
    rates: Vec<f64>,
    /// Microseconds of processor time a call, the caller's share too, each time.
    processor: Vec<f64>,
    /// Nanoseconds of every call.
    latencies: Vec<u64>,
    /// Its throughput as a ratio to that of the row without, which ran just before.
    ratios: Vec<f64>,
    /// Microseconds of processor time that a call costs more.
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

    pub(crate) fn is_any(&self) -> bool {
        !self.rates.is_empty()
    }

    pub(crate) fn forget(&mut self) {
        for figures in [&mut self.rates, &mut self.processor, &mut self.ratios, &mut self.costs] {
            figures.clear();
        }
        self.latencies.clear();
    }
}

/// The median, and between what half of all lie.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at =
            |quarters: usize| values.get(values.len().saturating_sub(1) * quarters / 4).copied();
        Some(Self { median: at(2)?, low: at(1)?, high: at(3)? })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "low": self.low, "high": self.high })
    }

    fn text(self, decimals: usize) -> String {
        let Self { median, low, high } = self;
        format!("{median:.decimals$} ({low:.decimals$} to {high:.decimals$})")
    }
}

/// All that one run has measured.
pub(crate) struct Report {
    pub(crate) connections: usize,
    pub(crate) rounds: usize,
    /// While the edge has a processor of its own.
    pub(crate) divided: Vec<Measured>,
    /// While everything shares the processors.
    pub(crate) shared: Vec<Measured>,
    /// While the edge has a processor of its own.
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
                "refused_per_second": overloaded.refused,
                "goodput_ratio": overloaded.answered / overloaded.peak,
                "p99_us": quantile(&overloaded.latencies, 99),
                "metadata_p99_us": quantile(&overloaded.metadata, 99),
            })),
        })
    }
}

fn holds(ratio: f64, least: f64) -> &'static str {
    if ratio >= least { "holds" } else { "does NOT hold" }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, rounds, divided, shared, overloaded } = self;
        writeln!(
            f,
            "{rounds} rounds with {connections} connections; of ratios the median, and between what half of them lie\n"
        )?;
        writeln!(
            f,
            "{:<18}{:>9}{:>8}{:>8}{:>8}  {:<13}{:<24}cpu µs a call more",
            "", "calls/s", "cpu µs", "p50 µs", "p99 µs", "against", "throughput"
        )?;
        let told = [
            ("the edge has a processor of its own", divided),
            ("all share the processors", shared),
        ];
        for (how, rows) in told.iter().filter(|(_, rows)| !rows.is_empty()) {
            writeln!(f, "{how}")?;
            for measured in rows.iter() {
                writeln!(f, "{measured}")?;
            }
        }
        writeln!(f)?;
        for (name, least) in BUDGETS {
            let row = divided.iter().chain(shared).find(|measured| measured.name == name);
            if let Some(ratio) = row.and_then(|row| Spread::of(row.ratios.clone())) {
                let holds = holds(ratio.median, least);
                writeln!(f, "{name}: {least} of the throughput without, at least: {holds}")?;
            }
        }
        if let Some(Overloaded { peak, offered, answered, refused, latencies, metadata }) =
            overloaded
        {
            let (ratio, p99) = (answered / peak, quantile(latencies, 99) / 1000.0);
            let metadata = quantile(metadata, 99) / 1000.0;
            let holds = holds(ratio, GOODPUT_MIN);
            writeln!(
                f,
                "overload: of {offered:.0} calls/s {answered:.0} are answered (p99 {p99:.1} ms) and {refused:.0} \
                 refused; {ratio:.2} of the {peak:.0} calls/s at the peak, {GOODPUT_MIN} at least: {holds}; \
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
