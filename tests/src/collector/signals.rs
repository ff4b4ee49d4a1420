//! Data points and log records that the collector receives.

use std::sync::PoisonError;

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse, logs_service_server::LogsService,
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::MetricsService,
        },
    },
    metrics::v1::{metric::Data, number_data_point::Value as Number},
    resource::v1::Resource,
};
use tonic::{Request, Response, Status};

use super::{Collector, hex, text, texts};

/// A received data point.
#[derive(Clone, Debug)]
pub struct DataPoint {
    /// The service that exported it.
    pub service: String,
    /// The name of the metric.
    pub name: String,
    /// What the metric is.
    pub description: String,
    /// The unit of the metric.
    pub unit: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its attributes.
    pub attributes: Vec<(String, String)>,
    /// Its value; of a histogram, its count.
    pub value: f64,
    /// The counts of a histogram's buckets.
    pub buckets: Vec<u64>,
}

/// A received log record.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// The service that exported it.
    pub service: String,
    /// Its severity, as text.
    pub severity: String,
    /// Its message.
    pub body: String,
    /// Its trace, in hexadecimal. Empty: it is of none.
    pub trace_id: String,
    /// Its span, in hexadecimal. Empty: it is of none.
    pub span_id: String,
    /// Its attributes, as text.
    pub attributes: Vec<(String, String)>,
}

impl DataPoint {
    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl LogRecord {
    /// An attribute as text.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn service(resource: Option<Resource>) -> String {
    let attributes = texts(resource.unwrap_or_default().attributes);
    let name = attributes.into_iter().find(|(key, _)| key == "service.name");
    name.map(|(_, value)| value).unwrap_or_default()
}

impl Collector {
    /// All data points received so far.
    pub fn points(&self) -> Vec<DataPoint> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All log records received so far.
    pub fn records(&self) -> Vec<LogRecord> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn receive_metrics(&self, request: ExportMetricsServiceRequest) {
        if self.is_discarding {
            return;
        }
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.resource_metrics {
            let service = service(resource.resource);
            for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                let point = |kind, attributes, value, buckets| DataPoint {
                    service: service.clone(),
                    name: metric.name.clone(),
                    description: metric.description.clone(),
                    unit: metric.unit.clone(),
                    kind,
                    attributes: texts(attributes),
                    value,
                    buckets,
                };
                let (kind, numbers) = match metric.data.clone() {
                    Some(Data::Sum(sum)) => ("counter", sum.data_points),
                    Some(Data::Gauge(gauge)) => ("gauge", gauge.data_points),
                    Some(Data::Histogram(histogram)) => {
                        points.extend(histogram.data_points.into_iter().map(|it| {
                            point("histogram", it.attributes, it.count as f64, it.bucket_counts)
                        }));
                        continue;
                    }
                    other => panic!("{other:?} is no metric of a table"),
                };
                points.extend(numbers.into_iter().map(|number| {
                    let value = match number.value {
                        Some(Number::AsInt(value)) => value as f64,
                        Some(Number::AsDouble(value)) => value,
                        None => f64::NAN,
                    };
                    point(kind, number.attributes, value, Vec::new())
                }));
            }
        }
    }

    pub(super) fn receive_logs(&self, request: ExportLogsServiceRequest) {
        if self.is_discarding {
            return;
        }
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.resource_logs {
            let service = service(resource.resource);
            let logs = resource.scope_logs.into_iter().flat_map(|scope| scope.log_records);
            records.extend(logs.map(|record| LogRecord {
                service: service.clone(),
                severity: record.severity_text,
                body: text(record.body),
                trace_id: hex(&record.trace_id),
                span_id: hex(&record.span_id),
                attributes: texts(record.attributes),
            }));
        }
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.note_authorization(request.metadata().as_ref().get("authorization"));
        self.receive_metrics(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.note_authorization(request.metadata().as_ref().get("authorization"));
        self.receive_logs(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
