//! A scrape as metrics of OpenTelemetry's data model
//! (<https://opentelemetry.io/docs/specs/otel/metrics/data-model/>), with the same names and labels.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
        metric::Data, number_data_point::Value,
    },
};

use crate::{
    exposition::Sample,
    metric::{Unit, unit_of},
};

/// When counting began, and when it was read, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start: u64,
    pub(super) now: u64,
}

/// The metrics of a scrape, each with the number of its data points.
pub(super) fn metrics(scrape: &str, times: Times) -> impl Iterator<Item = (Metric, usize)> {
    let mut families: Vec<Family<'_>> = Vec::new();
    let mut described = ("", "");
    for line in scrape.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            described = help.split_once(' ').unwrap_or_default();
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|it| it.split_once(' '))
        {
            let help = if described.0 == name { described.1 } else { "" };
            families.push(Family { name, kind, help, samples: Vec::new() });
        } else if let (Some(family), Some(sample)) = (families.last_mut(), Sample::parse(line)) {
            family.samples.push(sample);
        }
    }
    families.into_iter().filter_map(move |family| family.metric(times))
}

/// The samples of one metric.
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    help: &'a str,
    samples: Vec<Sample>,
}

impl Family<'_> {
    /// `None`: it is of a kind that no table has.
    fn metric(self, times: Times) -> Option<(Metric, usize)> {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let (data, points) = match self.kind {
            "counter" => {
                let point = |sample| number(sample, times, |value| Value::AsInt(integer(value)));
                let data_points: Vec<_> = self.samples.into_iter().map(point).collect();
                let points = data_points.len();
                let is_monotonic = true;
                (Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic }), points)
            }
            "gauge" => {
                let point = |sample| number(sample, times, Value::AsDouble);
                let data_points: Vec<_> = self.samples.into_iter().map(point).collect();
                let points = data_points.len();
                (Data::Gauge(Gauge { data_points }), points)
            }
            "histogram" => {
                let data_points = histograms(self.name, self.samples, times);
                let points = data_points.len();
                (Data::Histogram(Histogram { data_points, aggregation_temporality }), points)
            }
            _ => return None,
        };
        let metric = Metric {
            name: self.name.to_owned(),
            description: self.help.replace("\\n", "\n").replace("\\\\", "\\"),
            unit: unit_of(self.name).map_or("", unit).to_owned(),
            data: Some(data),
            ..Metric::default()
        };
        Some((metric, points))
    }
}

/// A unit in UCUM, as OpenTelemetry writes them. Counts of things have none.
fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "s",
        Unit::Milliseconds => "ms",
        Unit::Bytes => "By",
        Unit::Percent => "%",
        _ => "",
    }
}

fn number(sample: Sample, times: Times, value: impl FnOnce(f64) -> Value) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(sample.labels),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        value: Some(value(sample.value)),
        ..NumberDataPoint::default()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a scrape writes counters as integers")]
fn integer(value: f64) -> i64 {
    value as i64
}

fn attributes(labels: BTreeMap<String, String>) -> Vec<KeyValue> {
    let attribute = |(key, value)| {
        let value = AnyValue { value: Some(any_value::Value::StringValue(value)) };
        KeyValue { key, value: Some(value), ..KeyValue::default() }
    };
    labels.into_iter().map(attribute).collect()
}

/// A histogram while its samples are read: bounds with the counts up to them.
#[derive(Default)]
struct Buckets {
    cumulative: Vec<(f64, u64)>,
    sum: f64,
    count: u64,
}

fn histograms(name: &str, samples: Vec<Sample>, times: Times) -> Vec<HistogramDataPoint> {
    let mut by_labels: BTreeMap<BTreeMap<String, String>, Buckets> = BTreeMap::new();
    for mut sample in samples {
        let bound = sample.labels.remove("le").and_then(|bound| bound.parse().ok());
        let buckets = by_labels.entry(sample.labels).or_default();
        let count = u64::try_from(integer(sample.value)).unwrap_or_default();
        match (sample.name.strip_prefix(name), bound) {
            (Some("_bucket"), Some(bound)) => buckets.cumulative.push((bound, count)),
            (Some("_sum"), _) => buckets.sum = sample.value,
            (Some("_count"), _) => buckets.count = count,
            _ => {}
        }
    }
    let point = |(labels, Buckets { mut cumulative, sum, count })| {
        cumulative.sort_by(|(a, _): &(f64, u64), (b, _)| a.total_cmp(b));
        let below = [0].into_iter().chain(cumulative.iter().map(|(_, count)| *count));
        let counts =
            cumulative.iter().zip(below).map(|((_, count), below)| count.saturating_sub(below));
        HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: times.start,
            time_unix_nano: times.now,
            count,
            sum: Some(sum),
            bucket_counts: counts.collect(),
            // The last bucket has no upper bound.
            explicit_bounds: cumulative
                .iter()
                .map(|(bound, _)| *bound)
                .filter(|bound| bound.is_finite())
                .collect(),
            ..HistogramDataPoint::default()
        }
    };
    by_labels.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{MetricInfo, MetricKind, describe};

    const TIMES: Times = Times { start: 1, now: 2 };

    fn converted(scrape: &str) -> Vec<Metric> {
        metrics(scrape, TIMES).map(|(metric, _)| metric).collect()
    }

    #[test]
    fn counters_and_gauges_have_their_help_unit_labels_and_times() {
        const INFO: MetricInfo = MetricInfo {
            name: "points_test_bytes_total",
            kind: MetricKind::Counter,
            unit: Unit::Bytes,
            help: "",
            labels: &["path"],
        };
        describe(&[INFO]);
        let metrics = converted(
            "# HELP points_test_bytes_total What\\\\it counts.\n\
             # TYPE points_test_bytes_total counter\n\
             points_test_bytes_total{path=\"a\\\"b\"} 3\npoints_test_bytes_total{path=\"c\"} 4\n\n\
             # TYPE points_test_gauge gauge\npoints_test_gauge -1.5\n",
        );
        let [counter, gauge] = &metrics[..] else { panic!("{metrics:?}") };
        assert_eq!(
            (counter.description.as_str(), counter.unit.as_str()),
            ("What\\it counts.", "By")
        );
        let Some(Data::Sum(sum)) = &counter.data else { panic!("{counter:?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{sum:?}");
        let point = &sum.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
        assert_eq!(
            (point.value, sum.data_points[1].value),
            (Some(Value::AsInt(3)), Some(Value::AsInt(4)))
        );
        assert!(format!("{:?}", point.attributes).contains(r#"a\"b"#), "{point:?}");
        let Some(Data::Gauge(points)) = &gauge.data else { panic!("{gauge:?}") };
        assert_eq!(points.data_points[0].value, Some(Value::AsDouble(-1.5)));
        assert_eq!((gauge.description.as_str(), gauge.unit.as_str()), ("", ""));
    }

    #[test]
    fn a_histogram_has_the_count_of_each_bucket_by_labels() {
        let metrics = converted(
            "# TYPE h histogram\n\
             h_bucket{a=\"1\",le=\"0.1\"} 2\nh_bucket{a=\"1\",le=\"0.2\"} 5\n\
             h_bucket{a=\"1\",le=\"+Inf\"} 6\nh_sum{a=\"1\"} 1.5\nh_count{a=\"1\"} 6\n\
             h_bucket{a=\"2\",le=\"0.1\"} 0\nh_bucket{a=\"2\",le=\"+Inf\"} 1\nh_sum{a=\"2\"} 3\nh_count{a=\"2\"} 1\n",
        );
        let Some(Data::Histogram(histogram)) = &metrics[0].data else { panic!("{metrics:?}") };
        let [first, second] = &histogram.data_points[..] else { panic!("{histogram:?}") };
        assert_eq!((first.bucket_counts.as_slice(), first.count), ([2, 3, 1].as_slice(), 6));
        assert_eq!(
            (first.explicit_bounds.as_slice(), first.sum),
            ([0.1, 0.2].as_slice(), Some(1.5))
        );
        assert_eq!((second.bucket_counts.as_slice(), second.sum), ([0, 1].as_slice(), Some(3.0)));
    }
}
