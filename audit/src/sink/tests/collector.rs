//! Collectors of OpenTelemetry.

use axum::{body::Bytes, response::IntoResponse};
use drawbridge_runtime::otlp::OtlpProtocol;
use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    common::v1::any_value::Value,
    logs::v1::LogRecord,
};
use prost::Message as _;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use super::*;

#[derive(Clone, Debug, Default)]
struct Collector(Arc<Mutex<Exported>>);

#[derive(Debug, Default)]
struct Exported {
    services: Vec<String>,
    records: Vec<LogRecord>,
    /// How many attempts fail.
    failures: u32,
    /// How many records of each batch are rejected.
    rejected: i64,
}

impl Collector {
    fn receive(&self, request: ExportLogsServiceRequest) -> Option<ExportLogsServiceResponse> {
        let mut state = self.0.lock().unwrap();
        if state.failures > 0 {
            state.failures -= 1;
            return None;
        }
        for resource in request.resource_logs {
            let attributes = resource.resource.unwrap().attributes;
            let service = attributes.into_iter().find(|it| it.key == "service.name").unwrap();
            state.services.push(string(service.value.unwrap().value));
            let records = resource.scope_logs.into_iter().flat_map(|scope| scope.log_records);
            state.records.extend(records);
        }
        let rejected_log_records = state.rejected;
        let partial_success = (rejected_log_records > 0)
            .then(|| ExportLogsPartialSuccess { rejected_log_records, ..Default::default() });
        Some(ExportLogsServiceResponse { partial_success })
    }

    fn bodies(&self) -> Vec<String> {
        let records = self.0.lock().unwrap().records.clone();
        records.into_iter().map(|record| string(record.body.unwrap().value)).collect()
    }

    async fn until_complete(&self, folder: &Path) {
        let expected = texts(folder);
        let waiting = async {
            while self.bodies().len() < expected.len() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), waiting).await.expect("all lines");
        assert_eq!(self.bodies(), expected);
    }

    /// Serves both protocols. Returns the URL of this one.
    async fn serve(&self, protocol: OtlpProtocol) -> Url {
        let address = match protocol {
            OtlpProtocol::Grpc => {
                let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
                let address = incoming.local_addr().unwrap();
                let server = tonic::transport::Server::builder()
                    .add_service(LogsServiceServer::new(self.clone()))
                    .serve_with_incoming(incoming);
                tokio::spawn(server);
                address
            }
            OtlpProtocol::Http => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let collector = self.clone();
                let export = async move |body: Bytes| {
                    let request = ExportLogsServiceRequest::decode(body).unwrap();
                    match collector.receive(request) {
                        Some(response) => response.encode_to_vec().into_response(),
                        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    }
                };
                let router = Router::new().route("/v1/logs", post(export));
                tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
                address
            }
        };
        format!("http://{address}").parse().unwrap()
    }
}

fn string(value: Option<Value>) -> String {
    let Some(Value::StringValue(text)) = value else { panic!("{value:?}") };
    text
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let answer = self.receive(request.into_inner());
        answer.map(Response::new).ok_or_else(|| Status::unavailable("not now"))
    }
}

fn exporting(folder: &Path, url: Url, protocol: OtlpProtocol) -> AuditConfig {
    let mut config = config(folder, "a", AuditMode::Required);
    config.sinks.audit_otlp = true;
    config.sinks.audit_otlp_endpoint = Some(url);
    config.sinks.audit_otlp_protocol = Some(protocol);
    config
}

async fn check(protocol: OtlpProtocol) {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::default();
    collector.0.lock().unwrap().failures = 2;
    let url = collector.serve(protocol).await;
    let log = TestLog::with(&exporting(folder.path(), url, protocol));
    let trace_id = "0af7651916cd43dd8448eb211c80319c".to_owned();
    let call = crate::event::Call { trace_id, ..Default::default() };
    log.log.commit(crate::Event::Call(Box::new(call))).await.unwrap();
    collector.until_complete(folder.path()).await;
    log.stop().await;
    let state = collector.0.lock().unwrap();
    assert!(state.services.iter().all(|service| service == "test"));
    let call = state.records.iter().find(|it| it.event_name == "drawbridge.audit.call").unwrap();
    assert_eq!(call.trace_id[..4], [0x0a, 0xf7, 0x65, 0x19]);
    let line = string(call.body.clone().unwrap().value);
    let record: crate::Record = serde_json::from_str(&line).unwrap();
    let time: jiff::Timestamp = record.time.parse().unwrap();
    assert_eq!(i128::from(call.time_unix_nano), time.as_nanosecond());
    let uid = call.attributes.iter().find(|it| it.key == "log.record.uid").unwrap();
    let expected = format!("{}#{}", record.log, record.seq);
    assert_eq!(string(uid.value.clone().unwrap().value), expected);
}

#[tokio::test]
async fn a_collector_gets_every_line_as_the_body_of_a_log_record_over_grpc() {
    check(OtlpProtocol::Grpc).await;
}

#[tokio::test]
async fn a_collector_gets_every_line_as_the_body_of_a_log_record_over_http() {
    check(OtlpProtocol::Http).await;
}

#[test]
fn records_that_a_collector_rejects_are_counted_and_not_sent_again() {
    let metrics = with_metrics(async {
        let folder = tempfile::tempdir().unwrap();
        let collector = Collector::default();
        collector.0.lock().unwrap().rejected = 1;
        let url = collector.serve(OtlpProtocol::Grpc).await;
        let log = TestLog::with(&exporting(folder.path(), url, OtlpProtocol::Grpc));
        log.write(&["one"]).await;
        collector.until_complete(folder.path()).await;
        log.write(&["two"]).await;
        collector.until_complete(folder.path()).await;
        log.log.stop().await;
        // The end of the log was acknowledged, and counted.
        drop(log.service);
        collector.until_complete(folder.path()).await;
    });
    let rejected = r#"audit_sink_records_dropped_total{sink="otlp",reason="rejected"}"#;
    let line = metrics.lines().find(|line| line.starts_with(rejected)).unwrap();
    assert!(line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap() >= 1, "{line}");
}
