use super::*;

fn variables(pairs: &[(&str, &str)]) -> OtlpVariables {
    let add = |variables: OtlpVariables, (name, value): &(&str, &str)| {
        variables.with(&format!("{PREFIX}{name}"), value)
    };
    pairs.iter().fold(OtlpVariables::default(), add)
}

fn settings(
    signal: Signal,
    endpoint: Option<&str>,
    protocol: OtlpProtocol,
    pairs: &[(&str, &str)],
) -> Result<OtlpSettings, OtlpConfigError> {
    let endpoint = endpoint.map(|url| url.parse().unwrap());
    OtlpSettings::new(signal, endpoint.as_ref(), protocol, &variables(pairs))
}

#[track_caller]
fn check_endpoint(
    general: Option<&str>,
    protocol: OtlpProtocol,
    pairs: &[(&str, &str)],
    expected: &str,
) {
    let settings = settings(Signal::Metrics, general, protocol, pairs).unwrap();
    assert_eq!(settings.endpoint.as_str(), expected, "{general:?} {protocol:?} {pairs:?}");
}

#[test]
fn the_endpoint_of_a_signal_is_used_as_it_is_and_that_of_all_gets_a_path_over_http() {
    let own = [("METRICS_ENDPOINT", "http://own:1/x"), ("TRACES_ENDPOINT", "http://other:1")];
    let (grpc, http) = (OtlpProtocol::Grpc, OtlpProtocol::Http);
    check_endpoint(None, grpc, &[], "http://localhost:4317/");
    check_endpoint(None, http, &[], "http://localhost:4318/v1/metrics");
    check_endpoint(Some("http://a:1"), grpc, &[], "http://a:1/");
    check_endpoint(Some("http://a:1/base/"), http, &[], "http://a:1/base/v1/metrics");
    check_endpoint(Some("http://a:1"), http, &own, "http://own:1/x");
    check_endpoint(Some("http://a:1"), grpc, &own, "http://own:1/x");
    check_endpoint(Some("http://a:1"), http, &[("METRICS_PROTOCOL", "grpc")], "http://a:1/");
}

#[test]
fn a_signals_own_variables_replace_those_of_all_signals() {
    let pairs = [
        ("HEADERS", "authorization=Bearer%20s3cret,x-a=1"),
        ("LOGS_HEADERS", "X-B = 2"),
        ("TIMEOUT", "1500"),
        ("LOGS_TIMEOUT", "20"),
    ];
    let all = settings(Signal::Traces, None, OtlpProtocol::Grpc, &pairs).unwrap();
    assert_eq!(all.headers["authorization"].to_str().unwrap(), "Bearer s3cret");
    assert_eq!((all.headers.len(), all.timeout), (2, Duration::from_millis(1500)));
    assert!(!format!("{all:?}").contains("s3cret"), "{all:?}");
    assert!(!format!("{:?}", variables(&pairs)).contains("s3cret"));
    let own = settings(Signal::Logs, None, OtlpProtocol::Grpc, &pairs).unwrap();
    assert_eq!((own.headers.len(), own.timeout), (1, Duration::from_millis(20)));
    assert_eq!(own.headers["x-b"], "2");
}

#[test]
fn an_invalid_variable_is_named_without_its_value() {
    for (name, value) in [
        ("HEADERS", "s3cret"),
        ("TIMEOUT", "s3cret"),
        ("TIMEOUT", "0"),
        ("LOGS_PROTOCOL", "http/json"),
        ("LOGS_ENDPOINT", "localhost:4317"),
        ("COMPRESSION", "gzip"),
        ("CERTIFICATE", "/nonexistent/ca.pem"),
        ("CLIENT_KEY", "Cargo.toml"),
    ] {
        let error = settings(Signal::Logs, None, OtlpProtocol::Http, &[(name, value)]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(&format!("{PREFIX}{name}")), "{name}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn grpc_with_tls_is_rejected_with_what_would_be_right() {
    let settings = settings(Signal::Logs, Some("https://a:1"), OtlpProtocol::Grpc, &[]).unwrap();
    let error = super::super::OtlpClient::new(settings).unwrap_err().to_string();
    assert!(error.contains("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"), "{error}");
}
