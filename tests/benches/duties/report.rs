//! What is printed.

use std::fmt;

use serde_json::{Value, json};

use crate::{load::Sample, overload::Overloaded, rows::Row};

/// The least throughput of a row, as a ratio to that of the row without.
const BUDGETS: [(&str, f64); 2] = [("all", 0.75), ("cache-hit", 3.0)];

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

    pub(crate) fn forget(&mut self) {
        for figures in [&mut self.rates, &mut self.processor, &mut self.ratios, &mut self.costs] {
            figures.clear();
        }
        self.latencies.clear();
    }
}

/// The median, the least and the most.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Self { median: *values.get(values.len() / 2)?, min: *values.first()?, max: *values.last()? })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }

    fn text(self, decimals: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.decimals$} ({min:.decimals$} to {max:.decimals$})")
    }
}

/// All that one run has measured.
pub(crate) struct Report {
    pub(crate) connections: usize,
    pub(crate) rounds: usize,
    pub(crate) measured: Vec<Measured>,
    pub(crate) overloaded: Option<Overloaded>,
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let row = |measured: &Measured| {
            let spread = |figures: &Vec<f64>| Spread::of(figures.clone()).map(Spread::json);
            let (p50, p99) = (quantile(&measured.latencies, 50), quantile(&measured.latencies, 99));
            json!({
                "name": measured.name,
                "against": measured.against,
                "calls_per_second": spread(&measured.rates),
                "processor_us": spread(&measured.processor),
                "p50_us": p50,
                "p99_us": p99,
                "throughput_ratio": spread(&measured.ratios),
                "costs_us": spread(&measured.costs),
            })
        };
        json!({
            "connections": self.connections,
            "rounds": self.rounds,
            "rows": self.measured.iter().map(row).collect::<Vec<_>>(),
            "overload": self.overloaded.as_ref().map(|overloaded| json!({
                "peak_per_second": overloaded.peak,
                "offered_per_second": overloaded.offered,
                "answered_per_second": overloaded.answered,
                "refused_per_second": overloaded.refused,
                "goodput_ratio": overloaded.answered / overloaded.peak,
                "p99_us": quantile(&overloaded.latencies, 99),
            })),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, rounds, measured, overloaded } = self;
        writeln!(
            f,
            "{rounds} rounds with {connections} connections; of the ratios the median, least and most\n"
        )?;
        writeln!(
            f,
            "{:<18}{:>9}{:>8}{:>8}{:>8}  {:<13}{:<24}cpu µs a call more",
            "", "calls/s", "cpu µs", "p50 µs", "p99 µs", "against", "throughput"
        )?;
        for measured in measured {
            let median = |values: &[f64]| Spread::of(values.to_vec()).map_or(0.0, |spread| spread.median);
            write!(
                f,
                "{:<18}{:>9.0}{:>8.0}{:>8.0}{:>8.0}",
                measured.name,
                median(&measured.rates),
                median(&measured.processor),
                quantile(&measured.latencies, 50),
                quantile(&measured.latencies, 99),
            )?;
            match (Spread::of(measured.ratios.clone()), Spread::of(measured.costs.clone())) {
                (Some(throughput), Some(costs)) => {
                    let (throughput, costs) = (throughput.text(2), costs.text(0));
                    writeln!(f, "  {:<13}{throughput:<24}{costs}", measured.against)?;
                }
                _ => writeln!(f)?,
            }
        }
        for (name, least) in BUDGETS {
            let row = measured.iter().find(|measured| measured.name == name);
            if let Some(ratio) = row.and_then(|row| Spread::of(row.ratios.clone())) {
                let holds = if ratio.median >= least { "holds" } else { "does NOT hold" };
                writeln!(f, "\n{name}: {least} of the throughput without, at least: {holds}")?;
            }
        }
        if let Some(Overloaded { peak, offered, answered, refused, latencies }) = overloaded {
            let (ratio, p99) = (answered / peak, quantile(latencies, 99) / 1000.0);
            writeln!(
                f,
                "overload: of {offered:.0} calls/s {answered:.0} are answered (p99 {p99:.1} ms) and {refused:.0} \
                 refused; {ratio:.2} of the {peak:.0} calls/s at the peak, the load's own share of the processor included"
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
