//! The client of a collector of OpenTelemetry's protocol, OTLP, over gRPC or HTTP.
//!
//! Its variables are those of the specification
//! (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header::CONTENT_TYPE, uri::PathAndQuery};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use reqwest::redirect::Policy;
use tonic::{
    client::Grpc,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use url::Url;

pub use self::settings::{OtlpConfigError, OtlpProtocol, OtlpSettings, OtlpVariables};
use crate::bounded::{self, BodyError};

mod settings;

/// The most bytes of a response.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// What is sent to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
}

/// A request of one signal.
pub trait OtlpRequest: prost::Message + Clone + 'static {
    /// The response to it.
    type Response: prost::Message + Default + Send + Sync + 'static;
    /// The path of its RPC.
    const RPC: &'static str;
    /// How many spans, data points or log records the collector has rejected.
    fn rejected(response: &Self::Response) -> i64;
}

impl OtlpRequest for ExportTraceServiceRequest {
    type Response = ExportTraceServiceResponse;
    const RPC: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn rejected(response: &Self::Response) -> i64 {
        response.partial_success.as_ref().map_or(0, |partial| partial.rejected_spans)
    }
}

impl OtlpRequest for ExportMetricsServiceRequest {
    type Response = ExportMetricsServiceResponse;
    const RPC: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

    fn rejected(response: &Self::Response) -> i64 {
        response.partial_success.as_ref().map_or(0, |partial| partial.rejected_data_points)
    }
}

impl OtlpRequest for ExportLogsServiceRequest {
    type Response = ExportLogsServiceResponse;
    const RPC: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

    fn rejected(response: &Self::Response) -> i64 {
        response.partial_success.as_ref().map_or(0, |partial| partial.rejected_log_records)
    }
}

/// A request could not be delivered.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The collector answered over gRPC that it has failed, or it is unreachable.
    #[error("the collector failed with {code:?}: {message}")]
    Grpc {
        /// The code.
        code: tonic::Code,
        /// What it says.
        message: String,
    },
    /// The collector is unreachable over HTTP, or did not answer in time.
    #[error("cannot call the collector")]
    Http(#[source] reqwest::Error),
    /// The collector answered over HTTP that it has failed.
    #[error("the collector answered {0}")]
    Status(StatusCode),
    /// The response over HTTP could not be read.
    #[error("cannot read the response of the collector")]
    Body(#[source] BodyError),
    /// The response over HTTP is not the one of the protocol.
    #[error("cannot decode the response of the collector")]
    Malformed(#[source] prost::DecodeError),
}

/// A client of a collector for one signal. Clones share its connections.
#[derive(Clone, Debug)]
pub struct OtlpClient {
    headers: HeaderMap,
    transport: Transport,
}

#[derive(Clone, Debug)]
enum Transport {
    Grpc { channel: Channel, origin: Uri },
    Http { client: reqwest::Client, endpoint: Url },
}

impl OtlpClient {
    /// A client, which connects with the first request. Must be called within a runtime.
    ///
    /// gRPC's client has no TLS here: with that feature of tonic, it would refuse the `https`
    /// addresses of services, whose TLS is `mtls`.
    ///
    /// # Errors
    /// When certificates cannot be used, or gRPC is to have TLS.
    pub fn new(settings: OtlpSettings) -> Result<Self, OtlpConfigError> {
        let OtlpSettings { endpoint, protocol, headers, timeout, tls } = settings;
        let transport = match protocol {
            OtlpProtocol::Grpc if endpoint.scheme() == "https" => {
                return Err(OtlpConfigError::GrpcTls { endpoint });
            }
            OtlpProtocol::Grpc => {
                let origin: Uri = endpoint.as_str().parse()?;
                let channel = Endpoint::from(origin.clone()).connect_timeout(timeout);
                Transport::Grpc { channel: channel.timeout(timeout).connect_lazy(), origin }
            }
            OtlpProtocol::Http => {
                let client = reqwest::Client::builder().timeout(timeout).redirect(Policy::none());
                Transport::Http { client: tls.apply(client)?.build()?, endpoint }
            }
        };
        Ok(Self { headers, transport })
    }

    /// Sends a request. Returns how much of it the collector has rejected for good, which is seldom
    /// any.
    ///
    /// # Errors
    /// When the collector did not take it. It may be sent again.
    pub async fn export<R: OtlpRequest>(&self, request: R) -> Result<u64, OtlpError> {
        let response = match &self.transport {
            Transport::Grpc { channel, origin } => {
                let mut message = tonic::Request::new(request);
                *message.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
                let mut grpc = Grpc::with_origin(channel.clone(), origin.clone());
                let failed = |error: tonic::transport::Error| OtlpError::Grpc {
                    code: tonic::Code::Unavailable,
                    message: crate::error_chain(&error),
                };
                grpc.ready().await.map_err(failed)?;
                let codec = ProstCodec::<R, R::Response>::default();
                let path = PathAndQuery::from_static(R::RPC);
                let response = grpc.unary(message, path, codec).await;
                let failed = |status: tonic::Status| OtlpError::Grpc {
                    code: status.code(),
                    message: status.message().to_owned(),
                };
                response.map_err(failed)?.into_inner()
            }
            Transport::Http { client, endpoint } => {
                let failed = |error: reqwest::Error| OtlpError::Http(error.without_url());
                let call = client
                    .post(endpoint.clone())
                    .headers(self.headers.clone())
                    .header(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))
                    .body(request.encode_to_vec());
                let response = call.send().await.map_err(failed)?;
                if !response.status().is_success() {
                    return Err(OtlpError::Status(response.status()));
                }
                let body = reqwest::Body::from(response);
                let body = bounded::read_body(body, RESPONSE_BYTES_MAX).await;
                let body = body.map_err(OtlpError::Body)?;
                <R::Response as prost::Message>::decode(body).map_err(OtlpError::Malformed)?
            }
        };
        Ok(u64::try_from(R::rejected(&response)).unwrap_or(0))
    }
}
