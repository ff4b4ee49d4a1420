//! A scrape of `/metrics`, in Prometheus's text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::collections::{BTreeMap, HashMap};

/// The samples of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scrape {
    samples: Vec<Sample>,
    /// The values by series, as the scrape spells them.
    values: HashMap<String, f64>,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Its name and labels, as the scrape spells them.
    series: String,
    name: String,
    labels: BTreeMap<String, String>,
    /// Its value.
    pub(crate) value: f64,
}

impl Sample {
    /// The value of a label. Empty: it has none.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map(String::as_str).unwrap_or_default()
    }
}

impl Scrape {
    /// Parses a scrape. Lines that are no sample are skipped.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let samples: Vec<_> = lines.filter_map(parse_sample).collect();
        let values = samples.iter().map(|sample| (sample.series.clone(), sample.value)).collect();
        Self { samples, values }
    }

    /// The samples of this name.
    pub(crate) fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// The value of the same series as `sample`.
    pub(crate) fn same(&self, sample: &Sample) -> Option<f64> {
        self.values.get(&sample.series).copied()
    }

    /// The sum of the samples of this name. `None`: no sample has this name.
    pub(crate) fn sum(&self, name: &str) -> Option<f64> {
        self.samples(name).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let (name, rest) = match line.find(['{', ' ', '\t']) {
        Some(end) => line.split_at(end),
        None => return None,
    };
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let series = line[..line.len() - rest.len()].to_owned();
    // A timestamp may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { series, name: name.to_owned(), labels, value })
}

/// Parses labels up to their closing brace, and returns the rest of the line.
fn parse_labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => value.push(match characters.next()? {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        labels.insert(name.trim().to_owned(), value);
        text = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_their_labels_with_escapes_and_values() {
        let text = "# HELP a_total What it counts.\n# TYPE a_total counter\n\
                    a_total{tool=\"code_search\",path=\"C:\\\\x\\\"y\\n,}\"} 3\n\
                    a_total{tool=\"b\"} 4 1700000000\nb 1.5e3\nc{} +Inf\n\nnonsense\nd{x=\"1} 2\n";
        let scrape = Scrape::parse(text);
        let all: Vec<_> = scrape.samples("a_total").collect();
        assert_eq!(all[0].label("path"), "C:\\x\"y\n,}");
        assert_eq!((all[0].value, all[1].value, all[1].label("tool")), (3.0, 4.0, "b"));
        assert_eq!(all[1].label("none"), "");
        assert_eq!(scrape.sum("a_total"), Some(7.0));
        assert_eq!(scrape.sum("b"), Some(1500.0));
        assert_eq!(scrape.sum("c"), Some(f64::INFINITY));
        assert_eq!((scrape.sum("d"), scrape.sum("nonsense")), (None, None));
    }
}
