//! The printed report.

use std::fmt;

use serde_json::{Value, json};

/// The results of one run.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

/// A figure and its budget.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) figure: f64,
    pub(crate) unit: &'static str,
    /// Its maximum. None: it has no budget.
    pub(crate) max: Option<f64>,
}

impl Report {
    /// Adds a figure without a budget.
    pub(crate) fn add(&mut self, name: impl Into<String>, figure: f64, unit: &'static str) {
        self.push(name.into(), figure, unit, None);
    }

    /// Adds a figure with a budget.
    pub(crate) fn at_most(
        &mut self,
        max: f64,
        name: impl Into<String>,
        figure: f64,
        unit: &'static str,
    ) {
        self.push(name.into(), figure, unit, Some(max));
    }

    fn push(&mut self, name: String, figure: f64, unit: &'static str, max: Option<f64>) {
        let row = Row { name, figure, unit, max };
        eprintln!("{row}");
        self.rows.push(row);
    }

    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|Row { name, figure, unit, max }| {
            json!({ "name": name, "figure": figure, "unit": unit, "at_most": max })
        });
        rows.collect()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, figure, unit, max } = self;
        write!(f, "{name:<62} {figure:>10.2} {unit}")?;
        match max {
            Some(max) if figure <= max => write!(f, ", {max} at max: holds"),
            Some(max) => write!(f, ", {max} at max: does NOT hold"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A quantile of latencies in nanoseconds, in hundredths, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "latencies are small")]
pub(crate) fn quantile(latencies: &mut [u64], hundredths: usize) -> f64 {
    latencies.sort_unstable();
    let index = latencies.len().saturating_sub(1) * hundredths / 100;
    latencies.get(index).copied().unwrap_or_default() as f64 / 1000.0
}
