use url::Url;

#[cfg(feature = "aws")]
use super::{AwsConfig, AwsSecretsManager};
#[cfg(feature = "azure")]
use super::{AzureConfig, AzureKeyVault};
use super::{
    CredentialLimits, CredentialSource, Credentials, EmbeddedSource, SetupError, Vault,
    VaultConfig, VaultLogin,
};
use drawbridge_runtime::{GrpcUrl, parse_defaults};
use drawbridge_transport::{Peers, SpiffeId};

/// The source of a tool service's credentials.
#[derive(Clone, Debug, clap::Args)]
pub struct CredentialsConfig {
    /// The gRPC address of auth, which reports revocations. The leases of revoked principals end.
    #[arg(long, default_value = "http://127.0.0.1:7110")]
    pub auth_url: GrpcUrl,

    /// A Vault.
    #[command(flatten)]
    pub vault: Option<VaultConfig>,

    /// How the service logs in to Vault in its own name.
    #[command(flatten)]
    pub vault_login: VaultLogin,

    /// AWS Secrets Manager.
    #[cfg(feature = "aws")]
    #[command(flatten)]
    pub aws: Option<AwsConfig>,

    /// An Azure Key Vault.
    #[cfg(feature = "azure")]
    #[command(flatten)]
    pub azure: Option<AzureConfig>,

    /// This process itself, in place of Vault. For a mesh on one machine; no argument selects it.
    #[arg(skip)]
    pub embedded: Option<EmbeddedSource>,
}

impl CredentialsConfig {
    /// No source yet, and auth at this address.
    #[must_use]
    pub fn new(auth_url: Url) -> Self {
        Self { auth_url: auth_url.into(), ..parse_defaults(&[]) }
    }

    /// A config with settings for every source, so that environment variables can change each of
    /// them. It points to nothing that exists and must not be opened.
    #[must_use]
    pub fn placeholder(url: &Url) -> Self {
        Self {
            vault: Some(VaultConfig::new(url.clone())),
            #[cfg(feature = "aws")]
            aws: Some(AwsConfig {
                aws_secrets_prefix: String::new(),
                aws_region: None,
                aws_endpoint_url: None,
            }),
            #[cfg(feature = "azure")]
            azure: Some(AzureConfig { azure_key_vault_url: url.clone(), azure_client_id: None }),
            ..Self::new(url.clone())
        }
    }

    /// Opens the credentials of `service` from the configured source. Must be called within a
    /// runtime, which renews and revokes them.
    ///
    /// # Errors
    /// When no source is configured, its files cannot be read, or gRPC cannot use auth's URL.
    pub fn open(
        self,
        service: &str,
        peers: &Peers,
        auth_id: Option<&SpiffeId>,
    ) -> Result<Credentials, SetupError> {
        let auth = peers.connect(&self.auth_url, "auth", auth_id)?;
        let mut sources = self.sources(service)?;
        let source = sources.pop().ok_or(SetupError::NoSource)?;
        if !sources.is_empty() {
            return Err(SetupError::SeveralSources);
        }
        let credentials = Credentials::new(source, CredentialLimits::default());
        credentials.watch_revocations(auth);
        Ok(credentials)
    }

    /// All configured sources.
    fn sources(self, service: &str) -> Result<Vec<CredentialSource>, SetupError> {
        let mut sources = Vec::new();
        if let Some(vault) = self.vault {
            sources.push(CredentialSource::Vault(
                Vault::new(service, vault)?.with_login(self.vault_login)?.into(),
            ));
        }
        #[cfg(feature = "aws")]
        if let Some(aws) = self.aws {
            sources.push(CredentialSource::AwsSecretsManager(
                AwsSecretsManager::new(service, aws)?.into(),
            ));
        }
        #[cfg(feature = "azure")]
        if let Some(azure) = self.azure {
            sources
                .push(CredentialSource::AzureKeyVault(AzureKeyVault::new(service, azure)?.into()));
        }
        sources.extend(self.embedded.map(CredentialSource::Embedded));
        Ok(sources)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Sample {
        #[command(flatten)]
        credentials: CredentialsConfig,
    }

    fn parse(arguments: &[&str]) -> Result<CredentialsConfig, clap::Error> {
        Sample::try_parse_from(["sample"].iter().chain(arguments)).map(|sample| sample.credentials)
    }

    fn open(config: CredentialsConfig) -> Result<Credentials, SetupError> {
        config.open("code", &Peers::default(), None)
    }

    #[tokio::test]
    async fn a_service_without_a_source_does_not_start() {
        let none = parse(&[]).unwrap();
        assert!(none.vault.is_none());
        assert!(matches!(open(none), Err(SetupError::NoSource)));
    }

    #[tokio::test]
    async fn the_url_of_a_vault_is_sufficient() {
        let config = parse(&["--vault-url", "https://vault.internal:8200"]).unwrap();
        let vault = config.vault.clone().unwrap();
        assert_eq!(vault.vault_url.as_str(), "https://vault.internal:8200/");
        assert_eq!(vault.vault_kv_mount, "secret");
        assert!(open(config).is_ok());
    }

    #[tokio::test]
    async fn a_service_login_is_configured_with_every_file_that_it_needs() {
        let at = ["--vault-url", "https://vault.internal:8200", "--vault-login"];
        let open = |method: &[&str]| open(parse(&[&at, method].concat()).unwrap());
        assert!(open(&["kubernetes"]).is_ok());
        assert!(open(&["token-file", "--vault-login-file", "/vault/token"]).is_ok());
        assert!(matches!(open(&["approle"]), Err(SetupError::LoginNeeds { .. })));
        assert!(parse(&["--vault-login", "kubernetes"]).is_err());
    }

    #[cfg(all(feature = "aws", feature = "azure"))]
    #[tokio::test]
    async fn exactly_one_source_must_be_configured() {
        let vault = ["--vault-url", "https://vault.internal:8200"];
        let aws = ["--aws-secrets-prefix", "drawbridge"];
        let azure = ["--azure-key-vault-url", "https://drawbridge.vault.azure.net"];
        let open = |arguments: &[&str]| open(parse(arguments).unwrap());
        assert!(open(&aws).is_ok() && open(&azure).is_ok());
        for two in [[aws, azure], [vault, aws], [vault, azure]] {
            assert!(matches!(open(two.as_flattened()), Err(SetupError::SeveralSources)), "{two:?}");
        }
        assert!(matches!(open(&["--aws-secrets-prefix", "a//b"]), Err(SetupError::Prefix { .. })));
        let plain = open(&["--azure-key-vault-url", "http://drawbridge.vault.azure.net"]);
        assert!(matches!(plain, Err(SetupError::NotHttps { .. })));
        assert!(parse(&["--aws-region", "eu-west-1"]).is_err());
    }

    #[test]
    fn vault_options_require_the_url_of_a_vault() {
        assert!(parse(&["--vault-kv-mount", "kv"]).is_err());
        assert!(parse(&["--vault-namespace", "team"]).is_err());
    }
}
