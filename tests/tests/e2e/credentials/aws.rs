//! AWS Secrets Manager, as moto implements it.

use std::{env, fs, process::Command};

use aws_credential_types::Credentials as Keys;
use aws_sdk_secretsmanager::{
    Client, Config,
    config::{BehaviorVersion, Region},
};
use drawbridge_credentials::{AwsConfig, AwsSecretsManager, CredentialsError};
use drawbridge_tests::Moto;
use secrecy::ExposeSecret as _;

use super::*;

const REGION: &str = "eu-central-1";
/// The variable with moto's URL for the process that plays a pod.
const MOTO: &str = "DRAWBRIDGE_TEST_MOTO";

fn client(moto: &Moto) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(moto.url.as_str())
        .credentials_provider(Keys::new("key-id", "secret-access-key", None, None, "test"));
    Client::from_conf(config.build())
}

async fn put(client: &Client, name: &str, text: &str) {
    client.create_secret().name(name).secret_string(text).send().await.expect("a secret");
}

fn config(url: &url::Url) -> AwsConfig {
    AwsConfig {
        aws_secrets_prefix: "drawbridge".to_owned(),
        aws_region: Some(REGION.to_owned()),
        aws_endpoint_url: Some(url.clone()),
    }
}

fn credentials(moto: &Moto) -> Credentials {
    let aws = AwsSecretsManager::new("tickets", config(&moto.url)).expect("a prefix");
    Credentials::new(
        CredentialSource::AwsSecretsManager(aws.with_client(client(moto)).into()),
        CredentialLimits::default(),
    )
}

#[test]
fn a_tenant_reads_only_its_own_secrets_and_no_secret_is_logged() {
    let (log, metrics) = observed(move || async move {
        let moto = Moto::start().await;
        let client = client(&moto);
        for (name, text) in [
            ("drawbridge/acme/tickets/helpdesk", r#"{"token":"of-acme","port":443}"#),
            ("drawbridge/globex/tickets/helpdesk", r#"{"token":"of-globex"}"#),
            ("drawbridge/acme/code/helpdesk", r#"{"token":"of-another-service"}"#),
            ("drawbridge/acme/tickets/plain", "of-plain-text"),
        ] {
            put(&client, name, text).await;
        }
        let credentials = credentials(&moto);
        let read = async |tenant: Option<&str>, name: &str| {
            credentials.secret(&caller_of_tenant(tenant), &context(), name).await
        };
        for (tenant, token) in [("acme", "of-acme"), ("globex", "of-globex")] {
            let secret = read(Some(tenant), "helpdesk").await.expect("a secret");
            assert_eq!(secret.field("token").expect("a field").expose_secret(), token);
        }
        let port = read(Some("acme"), "helpdesk").await.expect("a secret");
        assert_eq!(port.field("port").expect("a field").expose_secret(), "443");
        let plain = read(Some("acme"), "plain").await.expect("a secret");
        assert_eq!(plain.field("value").expect("a field").expose_secret(), "of-plain-text");

        let missing = read(Some("globex"), "plain").await.expect_err("no secret");
        assert!(matches!(missing, CredentialsError::NoSuchSecret), "{missing:?}");
        for tenant in [None, Some("acme/code"), Some("..")] {
            let refused = read(tenant, "helpdesk").await.expect_err("no secret");
            assert!(matches!(refused, CredentialsError::NoTenant), "{tenant:?}: {refused:?}");
        }
        check_secrets_only(&credentials).await;
        credentials.close().await;
    });
    for secret in ["of-acme", "of-globex", "of-plain-text", "secret-access-key"] {
        assert!(!log.contains(secret) && !metrics.contains(secret), "{secret} is leaked: {log}");
    }
    assert!(metrics.contains("operation=\"secret\",outcome=\"ok\""), "{metrics}");
}

#[tokio::test]
async fn a_cached_secret_survives_an_outage_and_others_fail_retryably() {
    let moto = Moto::start().await;
    put(&client(&moto), "drawbridge/acme/tickets/helpdesk", "{}").await;
    let credentials = credentials(&moto);
    let alice = caller_of_tenant(Some("acme"));
    credentials.secret(&alice, &context(), "helpdesk").await.expect("a secret");
    drop(moto);
    credentials.secret(&alice, &context(), "helpdesk").await.expect("the cached secret");
    let outage = credentials.secret(&alice, &context(), "other").await.expect_err("no secret");
    assert!(outage.is_retryable(), "{outage:?}");
    credentials.close().await;
}

#[tokio::test]
async fn a_pod_authenticates_with_its_service_account_token() {
    let moto = Moto::start().await;
    put(&client(&moto), "drawbridge/acme/tickets/helpdesk", r#"{"token":"of-acme"}"#).await;
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, "a.projected.token").expect("a file");
    // These settings are process-wide, so the pod runs in its own process.
    let program = env::current_exe().expect("this program");
    let pod = tokio::process::Command::from({
        let mut pod = Command::new(program);
        pod.args(["--exact", "--ignored", "credentials::aws::as_a_pod"])
            .env_clear()
            .env(MOTO, moto.url.as_str())
            .env("AWS_ENDPOINT_URL_STS", moto.url.as_str())
            .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/tickets")
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
        pod
    });
    let output = { pod }.output().await.expect("a process");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
}

#[ignore = "the process of the test above"]
#[tokio::test]
async fn as_a_pod() {
    let url = env::var(MOTO).expect("the test above sets it").parse().expect("a URL");
    let aws = AwsSecretsManager::new("tickets", config(&url)).expect("a prefix");
    let credentials = Credentials::new(
        CredentialSource::AwsSecretsManager(aws.into()),
        CredentialLimits::default(),
    );
    let secret = credentials
        .secret(&caller_of_tenant(Some("acme")), &context(), "helpdesk")
        .await
        .expect("a secret");
    assert_eq!(secret.field("token").expect("a field").expose_secret(), "of-acme");
}
