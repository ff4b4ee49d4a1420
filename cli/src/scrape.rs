//! A scrape of `/metrics`, in Prometheus's text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::collections::HashMap;

use drawbridge_runtime::Sample;

/// The samples of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scrape {
    samples: Vec<Sample>,
    /// The values by series, as the scrape spells them.
    values: HashMap<String, f64>,
}

impl Scrape {
    /// Parses a scrape. Lines that are no sample are skipped.
    pub(crate) fn parse(text: &str) -> Self {
        let samples: Vec<_> = text.lines().filter_map(Sample::parse).collect();
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
