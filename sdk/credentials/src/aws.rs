//! Secrets from AWS Secrets Manager.

use aws_config::{BehaviorVersion, Region, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::{
    Client,
    error::{DisplayErrorContext, ProvideErrorMetadata as _, SdkError},
    operation::get_secret_value::GetSecretValueError as Failed,
};
use http::StatusCode;
use tokio::sync::OnceCell;
use url::Url;

use super::{
    circuit::SourceCircuit,
    error::{CredentialsError, Outage, SetupError},
    is_path_segment,
    lease::Secret,
    timeouts::{CONNECT_TIMEOUT, TRY_TIMEOUT},
};

/// Which secrets of AWS Secrets Manager.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "AWS Secrets Manager")]
pub struct AwsConfig {
    /// The prefix of secret names, which have the form `<prefix>/<tenant>/<service>/<name>`.
    #[arg(long, required = false)]
    pub aws_secrets_prefix: String,

    /// The region. Absent: the one from AWS's own settings or from the environment that this runs
    /// in.
    #[arg(long)]
    pub aws_region: Option<String>,

    /// An endpoint that replaces the region's, for example of a VPC.
    #[arg(long)]
    pub aws_endpoint_url: Option<Url>,
}

/// Secrets from AWS Secrets Manager, for one tool service, by its own workload identity.
#[derive(Debug)]
pub struct AwsSecretsManager {
    service: String,
    prefix: String,
    region: Option<String>,
    endpoint: Option<Url>,
    /// Created at the first use: finding the region may need a request.
    client: OnceCell<Client>,
    circuit: SourceCircuit,
}

impl AwsSecretsManager {
    /// Secrets for `service`, by the identity that AWS's default chain finds. It sends no request
    /// yet.
    ///
    /// # Errors
    /// When the prefix is invalid.
    pub fn new(service: &str, config: AwsConfig) -> Result<Self, SetupError> {
        let AwsConfig {
            aws_secrets_prefix: prefix,
            aws_region: region,
            aws_endpoint_url: endpoint,
        } = config;
        if !prefix.split('/').all(is_path_segment) {
            return Err(SetupError::Prefix { prefix });
        }
        let (client, service) = (OnceCell::new(), service.to_owned());
        Ok(Self {
            service,
            prefix,
            region,
            endpoint,
            client,
            circuit: SourceCircuit::new("AWS Secrets Manager"),
        })
    }

    /// Replaces the client.
    #[must_use]
    pub fn with_client(self, client: Client) -> Self {
        Self { client: OnceCell::from(client), ..self }
    }

    pub(super) async fn secret(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Secret, CredentialsError> {
        self.circuit
            .call(async {
                let id = format!("{}/{tenant}/{}/{name}", self.prefix, self.service);
                let response = self.client().await.get_secret_value().secret_id(id).send().await;
                let text = response.map_err(|error| classify_error(&error))?.secret_string;
                Ok(Secret::from_text(text.ok_or(CredentialsError::Malformed)?))
            })
            .await
    }

    async fn client(&self) -> &Client {
        let connect = Box::pin(async {
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(TRY_TIMEOUT)
                .operation_timeout(2 * TRY_TIMEOUT);
            let config =
                aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts.build());
            let config = match &self.region {
                Some(region) => config.region(Region::new(region.clone())),
                None => config,
            };
            let config = match &self.endpoint {
                Some(endpoint) => config.endpoint_url(endpoint.as_str()),
                None => config,
            };
            Client::new(&config.load().await)
        });
        self.client.get_or_init(|| connect).await
    }
}

/// Classifies an error. Only its code is retained.
fn classify_error(error: &SdkError<Failed>) -> CredentialsError {
    match error {
        SdkError::TimeoutError(_) => CredentialsError::Unavailable(Outage::Timeout),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            CredentialsError::Unavailable(Outage::Timeout)
        }
        SdkError::ServiceError(response) => {
            classify_response(response.raw().status().as_u16(), response.err())
        }
        // No connection, or no identity.
        error => {
            let cause = DisplayErrorContext(error);
            tracing::warn!(%cause, "AWS Secrets Manager cannot be reached");
            CredentialsError::Unavailable(Outage::Unreachable)
        }
    }
}

fn classify_response(status: u16, failed: &Failed) -> CredentialsError {
    let code = failed.code().unwrap_or_default();
    match failed {
        // The second means that the secret is scheduled for deletion.
        Failed::ResourceNotFoundException(_) | Failed::InvalidRequestException(_) => {
            CredentialsError::NoSuchSecret
        }
        _ if status == StatusCode::TOO_MANY_REQUESTS || code.starts_with("Throttling") => {
            CredentialsError::Unavailable(Outage::Busy)
        }
        _ if status >= 500 => CredentialsError::Unavailable(Outage::Failed),
        _ => CredentialsError::Refused { status, reason: code.to_owned() },
    }
}
