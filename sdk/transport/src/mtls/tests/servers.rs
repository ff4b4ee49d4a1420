//! Which servers a client accepts.

use tokio::net::TcpListener;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};

use super::*;

/// Serves TLS with this certificate once; returns whether the client accepts it.
async fn is_accepted(
    client: &Peers,
    presented: &Signed,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> bool {
    let chain: Result<_, _> =
        CertificateDer::pem_slice_iter(presented.certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(presented.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.unwrap(), key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let call = tokio::spawn(check_health(client.connect(&url, "tools", None).unwrap()));
    let (stream, _) = listener.accept().await.unwrap();
    let accepted =
        timeout(TIMEOUT, TlsAcceptor::from(Arc::new(config)).accept(stream)).await.unwrap();
    call.abort();
    accepted.is_ok()
}

#[tokio::test]
async fn only_the_expected_service_is_accepted() {
    let (authority, other_authority) = (Authority::new(), Authority::new());
    let client = Files::new(&authority.sign("edge"), &[&authority]).peers();
    let tools = |change: fn(&mut CertificateParams)| authority.sign_with("tools", change);
    let cases = [
        ("is valid", true, authority.sign("tools")),
        (
            "names no host",
            true,
            tools(|params| params.subject_alt_names.retain(|name| matches!(name, SanType::URI(_)))),
        ),
        ("is of another authority", false, other_authority.sign("tools")),
        ("is another service's", false, authority.sign("invoices")),
        ("is the client's own", false, authority.sign("edge")),
        (
            "names only the host",
            false,
            tools(|params| {
                params.subject_alt_names = vec![
                    SanType::DnsName("localhost".try_into().unwrap()),
                    SanType::IpAddress([127, 0, 0, 1].into()),
                ];
            }),
        ),
        (
            "has expired",
            false,
            tools(|params| params.not_after = (SystemTime::now() - HOUR / 2).into()),
        ),
        (
            "is not valid yet",
            false,
            tools(|params| params.not_before = (SystemTime::now() + HOUR / 2).into()),
        ),
        (
            "is for clients",
            false,
            tools(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
        ),
        (
            "may sign others",
            false,
            tools(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        ),
    ];
    for (what, expected, presented) in &cases {
        assert_eq!(
            is_accepted(&client, presented, &[&TLS13]).await,
            *expected,
            "a certificate that {what}"
        );
    }
    assert!(!is_accepted(&client, &authority.sign("tools"), &[&TLS12]).await, "TLS 1.2");
}

#[tokio::test]
async fn a_call_to_an_impostor_fails_as_unavailable() {
    let authority = Authority::new();
    let server = Server::start(&authority, &["edge"]);
    let client = Files::new(&authority.sign("edge"), &[&authority]).peers();
    let channel = client.balanced(&[server.url()], "invoices", None).unwrap();
    let status = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    let status =
        check_health(client.connect(&server.url(), "invoices", None).unwrap()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
}
