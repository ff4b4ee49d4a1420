//! Which clients a server accepts.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        version::{TLS12, TLS13},
    },
};

use super::*;

/// The connection preface of an HTTP/2 client.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Whether the server accepts a client with this certificate.
async fn is_accepted(
    server: &Server,
    authority: &Authority,
    presented: Option<&Signed>,
    version: &'static SupportedProtocolVersion,
) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match presented {
        None => config.with_no_client_auth(),
        Some(Signed { certificate, key }) => {
            let chain =
                CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(chain.unwrap(), key).unwrap()
        }
    };
    let stream = TcpStream::connect(server.address).await.unwrap();
    let exchange = async {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        // The server's verdict arrives after the client's handshake, with its first bytes.
        stream.write_all(PREFACE).await?;
        stream.read_u8().await
    };
    timeout(TIMEOUT, exchange).await.unwrap().is_ok()
}

#[tokio::test]
async fn only_a_valid_certificate_of_an_allowed_service_is_accepted() {
    let (authority, other_authority) = (Authority::new(), Authority::new());
    let server = Server::start(&authority, &["edge"]);
    let edge = |change: fn(&mut CertificateParams)| authority.sign_with("edge", change);
    let id = id("edge");
    let cases = [
        ("is valid", true, Some(authority.sign("edge"))),
        (
            "has no key usage",
            true,
            Some(edge(|params| {
                params.extended_key_usages.clear();
                params.key_usages.clear();
            })),
        ),
        ("is missing", false, None),
        ("is of another authority", false, Some(other_authority.sign("edge"))),
        ("is another service's", false, Some(authority.sign("invoices"))),
        ("is the server's own", false, Some(authority.sign("tools"))),
        (
            "is of another trust domain",
            false,
            Some(edge(|params| {
                params.subject_alt_names = vec![uri("spiffe://evil.example/edge")];
            })),
        ),
        (
            "has the id as a host",
            false,
            Some(edge(|params| {
                params.subject_alt_names =
                    vec![SanType::DnsName("spiffe://acme.example/edge".try_into().unwrap())];
            })),
        ),
        ("has no names", false, Some(edge(|params| params.subject_alt_names.clear()))),
        (
            "has two ids",
            false,
            Some(edge(|params| params.subject_alt_names.push(uri("spiffe://acme.example/x")))),
        ),
        (
            "has the id and another URI",
            false,
            Some(edge(|params| {
                params.subject_alt_names.insert(0, uri("https://acme.example/edge"));
            })),
        ),
        ("has a longer id", false, Some(authority.sign("edge/x"))),
        (
            "has expired",
            false,
            Some(edge(|params| params.not_after = (SystemTime::now() - HOUR / 2).into())),
        ),
        (
            "is not valid yet",
            false,
            Some(edge(|params| params.not_before = (SystemTime::now() + HOUR / 2).into())),
        ),
        (
            "is for servers",
            false,
            Some(edge(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            })),
        ),
        (
            "may sign others",
            false,
            Some(edge(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))),
        ),
        (
            "is an authority's",
            false,
            Some(edge(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ),
    ];
    for (what, expected, presented) in &cases {
        let accepted = is_accepted(&server, &authority, presented.as_ref(), &TLS13).await;
        assert_eq!(accepted, *expected, "a certificate of {id} that {what}");
    }
    let good = authority.sign("edge");
    assert!(!is_accepted(&server, &authority, Some(&good), &TLS12).await, "TLS 1.2");
}

#[tokio::test]
async fn plaintext_is_rejected() {
    let authority = Authority::new();
    let server = Server::start(&authority, &["edge"]);
    let url = format!("http://{}", server.address).parse().unwrap();
    assert!(check_health(crate::connect(&url).unwrap()).await.is_err());
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let mut response = Vec::new();
    let _ = timeout(TIMEOUT, stream.read_to_end(&mut response)).await.unwrap();
    // A TLS alert and nothing else.
    assert!(response.first().is_none_or(|&kind| kind == 21), "{response:?}");
}

#[tokio::test]
async fn a_certificate_of_an_intermediate_authority_is_accepted_with_its_chain() {
    let authority = Authority::new();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let pem = params.signed_by(&key, &authority.issuer).unwrap().pem();
    let intermediate = Authority { issuer: Issuer::new(params, key), pem };
    let mut signed = intermediate.sign("edge");
    let server = Server::start(&authority, &["edge"]);
    assert!(!is_accepted(&server, &authority, Some(&signed), &TLS13).await);
    signed.certificate.push_str(&intermediate.pem);
    assert!(is_accepted(&server, &authority, Some(&signed), &TLS13).await);
}

#[tokio::test]
async fn unfinished_handshakes_do_not_delay_other_clients() {
    let authority = Authority::new();
    let server = Server::start(&authority, &["edge"]);
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let client = Files::new(&authority.sign("edge"), &[&authority]).peers();
    let handshake_timeout = Duration::from_millis(HandshakeLimits::default().handshake_timeout_ms);
    let answered = timeout(handshake_timeout / 2, health(&client, &server.url())).await;
    answered.expect("before the silent ones time out").unwrap();
    for stream in &mut silent {
        let ended = timeout(TIMEOUT, stream.read_u8()).await.expect("in time");
        assert!(ended.is_err());
    }
}
