use std::{fs, os::unix::fs::PermissionsExt as _, time::SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

use super::{Report, file};

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// An authority: its certificate, and what signs others.
fn authority() -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new([]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    (params.self_signed(&key).expect("a certificate").pem(), Issuer::new(params, key))
}

/// A certificate with these URIs that expires after some days (in the past: negative), and its key.
fn issue(issuer: &Issuer<'static, KeyPair>, uris: &[&str], days: i32) -> (String, String) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("a URI")));
    params.subject_alt_names.extend(uris);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (SystemTime::now() - DAY * 300).into();
    let away = DAY * days.unsigned_abs();
    let now = SystemTime::now();
    params.not_after = if days < 0 { now - away } else { now + away }.into();
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// Checks the certificate of the service `code` in these files.
fn check(folder: &TempDir, certificate: &str, key: &str, bundle: &str) -> Report {
    let certificate = file(folder, "tls.crt", certificate);
    let bundle = file(folder, "ca.crt", bundle);
    let key = file(folder, "tls.key", key);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("a mode");
    check_files(&certificate, &key, &bundle)
}

fn check_files(certificate: &str, key: &str, bundle: &str) -> Report {
    let variables = format!(
        "DRAWBRIDGE_CODE_MTLS_CERTIFICATE_FILE={certificate}\nDRAWBRIDGE_CODE_MTLS_KEY_FILE={key}\n\
         DRAWBRIDGE_CODE_MTLS_TRUST_BUNDLE_FILE={bundle}\n\
         DRAWBRIDGE_CODE_MTLS_ALLOW=spiffe://acme.example/edge\n"
    );
    Report::of_variables(&variables, &[])
}

const ID: &[&str] = &["spiffe://acme.example/code"];

#[test]
fn faults_of_certificates_between_services_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let (bundle, issuer) = authority();
    let (good, key) = issue(&issuer, ID, 90);
    let report = check(&folder, &good, &key, &bundle);
    report.has("certificate", "ok", "it is spiffe://acme.example/code, until ", "");

    let (expired, its_key) = issue(&issuer, ID, -1);
    check(&folder, &expired, &its_key, &bundle).has("certificate", "failed", "expired", "renew it");
    let (soon, its_key) = issue(&issuer, ID, 3);
    check(&folder, &soon, &its_key, &bundle).has(
        "certificate",
        "warning",
        "expires at",
        "renew it",
    );
    let (_, other_key) = issue(&issuer, ID, 90);
    let report = check(&folder, &good, &other_key, &bundle);
    report.has("certificate", "failed", "do not match", "the key that belongs");
    let (nameless, its_key) = issue(&issuer, &[], 90);
    let report = check(&folder, &nameless, &its_key, &bundle);
    report.has("certificate", "failed", "exactly one URI", "SPIFFE id");
    let (other_bundle, _) = authority();
    let report = check(&folder, &good, &key, &other_bundle);
    report.has("certificate", "failed", "does not lead to the trust bundle", "authority");
    check(&folder, "nonsense", &key, &bundle).has("certificate", "failed", "tls.crt", "PEM");
    let report = check_files("/no/such/file", "/no/such/file", "/no/such/file");
    report.has("certificate", "failed", "cannot read /no/such/file", "the file exists");
}

#[test]
fn a_key_that_every_user_may_read_and_a_servers_certificate_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let (bundle, issuer) = authority();
    let (good, key) = issue(&issuer, ID, 90);
    let files = ["tls.crt", "tls.key", "ca.crt"].map(|name| folder.path().join(name));
    for (path, text) in files.iter().zip([&good, &key, &bundle]) {
        fs::write(path, text).expect("a file");
    }
    fs::set_permissions(&files[1], fs::Permissions::from_mode(0o644)).expect("a mode");
    let [certificate, key, bundle] = files.map(|path| path.to_str().expect("a path").to_owned());
    let report = check_files(&certificate, &key, &bundle);
    report.has("certificate", "failed", "(mode 0644)", "chmod o= ");

    let variables = format!(
        "DRAWBRIDGE_EDGE_AUTHORIZATION_SERVER=http://127.0.0.1:1\n\
         DRAWBRIDGE_EDGE_TLS_CERTIFICATE_FILE={certificate}\nDRAWBRIDGE_EDGE_TLS_KEY_FILE={key}\n"
    );
    let report = Report::of_variables(&variables, &[]);
    report.has("certificate", "ok", "it is for localhost, spiffe://acme.example/code", "");
}
