//! The set-up that the variables of services describe: those of this process, and those of files
//! such as `/etc/drawbridge/edge.env`.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches as _};
use drawbridge_auth::policy::bundle::PolicyLocation;
use drawbridge_credentials::VaultConfig;
use drawbridge_mesh::{ServiceInfo, services};
use drawbridge_runtime::{ServiceArgs, bounded, error_chain};
use drawbridge_transport::{MtlsConfig, Peers};
use secrecy::SecretString;
use url::Url;

use super::{
    bundles::BundleTarget, certificates::CertificateTarget, check::Finding, issuers::IssuerTarget,
    redis::RedisTarget, setup::Setup, vault::VaultTarget,
};

/// The largest file of variables, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// Reads a file of variables, as systemd and compose do: `NAME=value` in a line, quotes around a
/// value, comments after `#` at the beginning of a line.
pub(super) fn read(path: &Path) -> anyhow::Result<Variables> {
    let text = bounded::read_file_to_string(path, FILE_BYTES_MAX)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let mut variables = Variables::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').with_context(|| {
            format!("{}:{}: this line is not NAME=value", path.display(), at + 1)
        })?;
        variables.insert(name.trim().to_owned(), unquote(value.trim()).to_owned());
    }
    Ok(variables)
}

fn unquote(value: &str) -> &str {
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    quoted('"').or_else(|| quoted('\'')).unwrap_or(value)
}

/// The set-up of all services of which a variable is set.
pub(super) fn setup(variables: &Variables) -> Setup {
    let mut setup = Setup::default();
    for service in services() {
        if let Some(matches) = matches(&service, variables, &mut setup) {
            add_service(service.name, &matches, &mut setup);
        }
    }
    setup
}

/// The parsed options of a service. `None`: none of its variables is set, or one is invalid, which
/// is a problem of the set-up.
fn matches(service: &ServiceInfo, variables: &Variables, setup: &mut Setup) -> Option<ArgMatches> {
    let command = (service.command)();
    let own = format!("DRAWBRIDGE_{}_", service.name.to_uppercase());
    let of_process = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    if !variables.keys().cloned().chain(of_process).any(|name| name.starts_with(&own)) {
        return None;
    }
    let mut arguments = vec![service.name.to_owned()];
    for argument in command.get_arguments() {
        arguments.extend(as_argument(argument, variables));
    }
    match command.try_get_matches_from(arguments) {
        Ok(matches) => Some(matches),
        Err(error) => {
            let problem = error.to_string();
            let problem = problem.trim_start_matches("error: ").split("\n\n").next();
            setup.add_problem(
                service.name,
                Finding::failed(
                    problem.unwrap_or_default().trim().replace("\n ", ""),
                    format!(
                        "correct the variable {own}… of it (docs/reference/services/{}.md)",
                        service.name
                    ),
                ),
            );
            None
        }
    }
}

/// An option as on the command line, with the value of its variable in a file.
fn as_argument(argument: &Arg, variables: &Variables) -> Option<String> {
    let long = argument.get_long()?;
    let value = variables.get(argument.get_env()?.to_str()?)?;
    match argument.get_action() {
        ArgAction::SetTrue => {
            ["1", "true", "yes", "on"].contains(&value.as_str()).then(|| format!("--{long}"))
        }
        _ => Some(format!("--{long}={value}")),
    }
}

fn add_service(name: &str, matches: &ArgMatches, setup: &mut Setup) {
    match name {
        "edge" => add_edge(matches, setup),
        "auth" => add_auth(matches, setup),
        "idp" => {
            let users = config::<drawbridge_idp::Config>(matches).and_then(|it| it.users);
            setup.files.extend(users);
        }
        "invoices" => {
            let config = config::<drawbridge_invoices::Config>(matches);
            setup.databases.extend(config.map(|config| config.database_url));
        }
        _ => {}
    }
    if let Some(listen) = text(matches, "admin_listen").and_then(|listen| admin_url(&listen)) {
        setup.admin.push((name.to_owned(), listen));
    }
    if text(matches, "vault_url").is_some()
        && let Ok(config) = VaultConfig::from_arg_matches(matches)
    {
        add_vault(config, name, setup);
    }
    add_certificates(name, matches, setup);
}

fn config<C: Args>(matches: &ArgMatches) -> Option<C> {
    ServiceArgs::<C>::from_arg_matches(matches).ok().map(|args| args.config)
}

fn add_edge(matches: &ArgMatches, setup: &mut Setup) {
    let Some(edge) = config::<drawbridge_edge::Config>(matches) else { return };
    setup.public_urls.push(edge.public_url);
    setup.tools.extend(edge.services);
    setup.edge_config = edge.config;
    setup.redis.extend(edge.redis_url.map(|url| redis("edge", url)));
    match Peers::open(&edge.mtls) {
        Ok(peers) => setup.peers = peers,
        // The check of the certificate has the reason.
        Err(error) => setup.add_problem(
            "edge",
            Finding::failed(error_chain(&error), "correct the certificate files of the edge"),
        ),
    }
}

fn add_auth(matches: &ArgMatches, setup: &mut Setup) {
    let Some(auth) = config::<drawbridge_auth::Config>(matches) else { return };
    if let Some(issuer) = &auth.issuer {
        setup.add_issuer(IssuerTarget::new(issuer, auth.allow_private_addresses), issuer);
    }
    if let Some(path) = auth.issuers {
        setup.add_issuers_file(path);
    }
    setup.redis.extend(auth.redis_url.map(|url| redis("auth", url)));
    setup.audiences.extend(auth.audience);
    match auth.policies {
        PolicyLocation::Folder(folder) => setup.policies.push(folder),
        PolicyLocation::Bundle(location) => {
            setup.bundles.push(BundleTarget { location, config: auth.policy_bundles });
        }
    }
}

fn redis(used_by: &str, url: SecretString) -> RedisTarget {
    RedisTarget { used_by: used_by.to_owned(), url, is_temporary: false }
}

fn add_vault(config: VaultConfig, service: &str, setup: &mut Setup) {
    let same = setup.vaults.iter_mut().find(|vault| {
        vault.config.vault_url == config.vault_url
            && vault.config.vault_namespace == config.vault_namespace
    });
    match same {
        Some(vault) => vault.services.push(service.to_owned()),
        None => setup.vaults.push(VaultTarget { config, services: vec![service.to_owned()] }),
    }
}

fn add_certificates(name: &str, matches: &ArgMatches, setup: &mut Setup) {
    let mtls = MtlsConfig::from_arg_matches(matches).ok();
    if let Some(MtlsConfig {
        mtls_certificate_file: Some(certificate),
        mtls_key_file: Some(key),
        mtls_trust_bundle_file: trust_bundle @ Some(_),
        ..
    }) = mtls
    {
        let used_by = name.to_owned();
        setup.certificates.push(CertificateTarget { used_by, certificate, key, trust_bundle });
    }
    let files = text(matches, "tls_certificate_file").zip(text(matches, "tls_key_file"));
    setup.certificates.extend(files.map(|(certificate, key)| CertificateTarget {
        used_by: name.to_owned(),
        certificate: certificate.into(),
        key: key.into(),
        trust_bundle: None,
    }));
}

/// The first value of an option, as text.
fn text(matches: &ArgMatches, id: &str) -> Option<String> {
    // A service without the option has no such id.
    let values = matches.try_get_raw(id).ok().flatten();
    values.and_then(|mut values| values.next()?.to_str().map(str::to_owned))
}

/// The URL of an admin port that listens here. A Unix-domain socket has none.
fn admin_url(listen: &str) -> Option<Url> {
    let address: std::net::SocketAddr = listen.parse().ok()?;
    let host = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        ip if ip.is_unspecified() => "[::1]".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    format!("http://{host}:{}", address.port()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_has_comments_quotes_and_exports() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# comment\n\nA=1\nexport B=\"two words\"\n C = 'x=y' \n";
        std::fs::write(file.path(), text).unwrap();
        let read = |file: &tempfile::NamedTempFile| read(file.path());
        let variables = read(&file).unwrap();
        let all: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(all, [("A", "1"), ("B", "two words"), ("C", "x=y")]);
        std::fs::write(file.path(), "A=1\nnonsense\n").unwrap();
        assert!(read(&file).unwrap_err().to_string().ends_with(":2: this line is not NAME=value"));
    }

    #[test]
    fn variables_of_services_name_what_is_checked() {
        let variables = [
            ("DRAWBRIDGE_EDGE_PUBLIC_URL", "https://mcp.acme.example/mcp"),
            ("DRAWBRIDGE_EDGE_AUTHORIZATION_SERVER", "https://sso.acme.example"),
            ("DRAWBRIDGE_EDGE_SERVICE", "code=https://code.acme.internal:7210"),
            ("DRAWBRIDGE_EDGE_ADMIN_LISTEN", "0.0.0.0:7181"),
            ("DRAWBRIDGE_EDGE_REDIS_URL", "redis://redis.internal"),
            ("DRAWBRIDGE_AUTH_ISSUER", "https://sso.acme.example"),
            ("DRAWBRIDGE_AUTH_AUDIENCE", "https://mcp.acme.example/mcp"),
            ("DRAWBRIDGE_AUTH_POLICIES", "/etc/drawbridge/policies"),
            ("DRAWBRIDGE_INVOICES_DATABASE_URL", "postgres://db.internal/invoices"),
            ("DRAWBRIDGE_INVOICES_VAULT_URL", "https://vault.internal:8200"),
            ("DRAWBRIDGE_TICKETS_VAULT_URL", "https://vault.internal:8200"),
            ("DRAWBRIDGE_TICKETS_SAMPLE_HELPDESK", "true"),
            ("DRAWBRIDGE_CODE_LISTEN", "nonsense"),
        ];
        let variables =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let setup = setup(&variables.collect());
        let problems: Vec<_> = setup.problems.iter().map(|(name, found)| (name, found)).collect();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].0 == "code" && problems[0].1.finding.contains("--listen"));
        assert_eq!(setup.public_urls[0].as_str(), "https://mcp.acme.example/mcp");
        assert_eq!(setup.issuers.keys().collect::<Vec<_>>(), ["https://sso.acme.example"]);
        assert_eq!(setup.tools[0].namespace.as_str(), "code");
        assert_eq!(setup.admin[0].1.as_str(), "http://127.0.0.1:7111/", "the default of auth");
        assert_eq!(setup.admin[1].1.as_str(), "http://127.0.0.1:7181/");
        assert_eq!((setup.redis.len(), setup.databases.len()), (1, 1));
        assert_eq!(setup.policies, [Path::new("/etc/drawbridge/policies")]);
        assert_eq!(setup.audiences, ["https://mcp.acme.example/mcp"]);
        assert_eq!(setup.vaults.len(), 1);
        assert_eq!(setup.vaults[0].services, ["invoices", "tickets"]);
    }
}
