//! What is printed.

use std::fmt;

use serde_json::{Value, json};

/// All that one run has measured.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

/// A figure, and what it may be.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) figure: f64,
    pub(crate) unit: &'static str,
    /// The most that it may be. Absent: it has no budget.
    pub(crate) most: Option<f64>,
}

impl Report {
    /// Adds a figure without a budget.
    pub(crate) fn add(&mut self, name: impl Into<String>, figure: f64, unit: &'static str) {
        self.push(name.into(), figure, unit, None);
    }

    /// Adds a figure that has a budget.
    pub(crate) fn at_most(
        &mut self,
        most: f64,
        name: impl Into<String>,
        figure: f64,
        unit: &'static str,
    ) {
        self.push(name.into(), figure, unit, Some(most));
    }

    fn push(&mut self, name: String, figure: f64, unit: &'static str, most: Option<f64>) {
        let row = Row { name, figure, unit, most };
        eprintln!("{row}");
        self.rows.push(row);
    }

    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|Row { name, figure, unit, most }| {
            json!({ "name": name, "figure": figure, "unit": unit, "at_most": most })
        });
        rows.collect()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, figure, unit, most } = self;
        write!(f, "{name:<62} {figure:>10.2} {unit}")?;
        match most {
            Some(most) if figure <= most => write!(f, ", {most} at most: holds"),
            Some(most) => write!(f, ", {most} at most: does NOT hold"),
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
