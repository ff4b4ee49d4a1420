use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use drawbridge_auth::policy::{PolicyStatus, STATUS_PATH};
use drawbridge_runtime::{bounded, error_chain, parse_url};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use url::{Host, Url};

use super::{Verdict, paint, pluralize, print_json};
use crate::table;

const TIMEOUT: Duration = Duration::from_secs(5);
const STATUS_BYTES_MAX: usize = 64 * 1024;

/// Arguments of `policy status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge policy status --auth http://127.0.0.1:7111
  drawbridge policy status --auth http://auth-headless:7111 --revision 42 --json

A replica is behind if its bundle is older than another's, or has another revision than \
--revision. Exit codes: 0, every replica has the newest policies and no problem; 1, one does not; \
2, an error.")]
pub struct StatusArgs {
    /// The admin address of auth, as http://HOST:PORT. All replicas that the host resolves to are
    /// asked. Repeat, or separate by commas.
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        value_parser = parse_url,
        required = true
    )]
    auth: Vec<Url>,

    /// The revision of the bundle that every replica should have.
    #[arg(long, value_name = "NUMBER")]
    revision: Option<u64>,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// A replica with what it says.
#[derive(Clone, Debug, Serialize)]
struct Replica {
    url: Url,
    status: Option<PolicyStatus>,
    /// Why it says nothing.
    error: Option<String>,
    is_behind: bool,
}

pub(super) async fn run(args: &StatusArgs) -> anyhow::Result<Verdict> {
    let http = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .context("cannot set up the HTTP client")?;
    let mut replicas = Vec::new();
    for url in &args.auth {
        for url in addresses(url).await? {
            let (status, error) = match ask(&http, &url).await {
                Ok(status) => (Some(status), None),
                Err(error) => (None, Some(error_chain(error.as_ref()))),
            };
            replicas.push(Replica { url, status, error, is_behind: false });
        }
    }
    mark(&mut replicas, args.revision);
    let has_problem = |status: &PolicyStatus| status.problem.is_some();
    let is_good =
        |replica: &Replica| !replica.is_behind && !replica.status.as_ref().is_some_and(has_problem);
    let good = replicas.iter().all(is_good);
    if args.json {
        print_json(&json!({ "ok": good, "replicas": replicas }))?;
    } else {
        print(&replicas);
    }
    Ok(Verdict::good_if(good))
}

/// The URLs of all replicas behind a URL.
async fn addresses(url: &Url) -> anyhow::Result<Vec<Url>> {
    let Some(Host::Domain(name)) = url.host() else { return Ok(vec![url.clone()]) };
    // A certificate is for the name.
    if url.scheme() == "https" || name == "localhost" {
        return Ok(vec![url.clone()]);
    }
    let port = url.port_or_known_default().unwrap_or(80);
    let resolved = tokio::net::lookup_host((name, port)).await;
    let resolved = resolved.with_context(|| format!("cannot resolve the host of {url}"))?;
    let mut addresses: Vec<SocketAddr> = resolved.collect();
    addresses.sort_unstable();
    addresses.dedup();
    let with = |address: &SocketAddr| {
        let mut url = url.clone();
        // It had a host before.
        let _ = url.set_ip_host(address.ip());
        url
    };
    Ok(addresses.iter().map(with).collect())
}

async fn ask(http: &reqwest::Client, url: &Url) -> anyhow::Result<PolicyStatus> {
    let response =
        http.get(url.join(STATUS_PATH)?).send().await.map_err(reqwest::Error::without_url)?;
    let response = http::Response::from(response);
    let (head, body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        bail!("it answered {}; is it the admin address of auth?", head.status);
    }
    let body = bounded::read_body(body, STATUS_BYTES_MAX).await?;
    serde_json::from_slice(&body).context("it is not auth")
}

/// Marks the replicas whose policies are not the wanted revision or, without one, not the newest.
fn mark(replicas: &mut [Replica], wanted: Option<u64>) {
    // A bundle that rolls back has a smaller revision, but was made later.
    let age = |status: &PolicyStatus| {
        let created = status.bundle.as_ref().map_or(&status.since, |bundle| &bundle.created);
        created.parse::<Timestamp>().ok()
    };
    let identity = |status: &PolicyStatus| {
        let bundle = status.bundle.as_ref().map(|bundle| bundle.revision);
        (bundle, status.revision.clone())
    };
    let statuses = replicas.iter().filter_map(|replica| replica.status.as_ref());
    let newest = statuses.max_by_key(|status| age(status)).map(identity);
    for replica in replicas {
        replica.is_behind = match (&replica.status, wanted) {
            (None, _) => true,
            (Some(status), Some(wanted)) => identity(status).0 != Some(wanted),
            (Some(status), None) => Some(identity(status)) != newest,
        };
    }
}

fn print(replicas: &[Replica]) {
    let mut table = table::new();
    table.set_header(["replica", "bundle", "policies", "since", "source", "state"]);
    for Replica { url, status, error, is_behind } in replicas {
        let address = url.authority().to_owned();
        let Some(status) = status else {
            let error = error.clone().unwrap_or_default();
            table.add_row([address, "-".into(), "-".into(), "-".into(), "-".into(), error]);
            continue;
        };
        let bundle = status.bundle.as_ref().map(|bundle| bundle.revision.to_string());
        let state = match (&status.problem, is_behind) {
            (Some(problem), _) => problem.clone(),
            (None, true) => "behind".to_owned(),
            (None, false) => "ok".to_owned(),
        };
        table.add_row([
            address,
            bundle.unwrap_or_else(|| "-".to_owned()),
            status.revision.clone(),
            status.since.clone(),
            status.source.clone(),
            state,
        ]);
    }
    anstream::println!("{table}");
    let behind = replicas.iter().filter(|replica| replica.is_behind).count();
    let all = pluralize(replicas.len(), "replica");
    anstream::println!(
        "{all}: {}",
        if behind == 0 {
            paint::good("none is behind")
        } else {
            paint::bad(&format!("{behind} behind"))
        }
    );
}

#[cfg(test)]
mod tests {
    use drawbridge_auth::policy::BundleStatus;

    use super::*;

    fn replica(bundle: Option<(u64, i64)>, since: i64, revision: &str) -> Replica {
        let time = |second| Timestamp::from_second(second).unwrap().to_string();
        let bundle = bundle.map(|(revision, created)| BundleStatus {
            name: "policies".to_owned(),
            revision,
            sha256: String::new(),
            created: time(created),
            not_after: None,
        });
        let status = PolicyStatus {
            revision: revision.to_owned(),
            source: "policies".to_owned(),
            since: time(since),
            bundle,
            problem: None,
        };
        let url = "http://127.0.0.1:7111".parse().unwrap();
        Replica { url, status: Some(status), error: None, is_behind: false }
    }

    fn check(mut replicas: Vec<Replica>, wanted: Option<u64>, behind: &[bool]) {
        mark(&mut replicas, wanted);
        let is: Vec<_> = replicas.iter().map(|replica| replica.is_behind).collect();
        assert_eq!(is, behind, "{replicas:?}");
    }

    #[test]
    fn a_replica_without_the_newest_policies_is_behind() {
        let two = || vec![replica(Some((1, 10)), 50, "a"), replica(Some((2, 20)), 40, "b")];
        check(two(), None, &[true, false]);
        check(two(), Some(1), &[false, true]);
        check(two(), Some(3), &[true, true]);
        // A rollback was made later than what it replaces.
        check(vec![replica(Some((1, 30)), 1, "a"), two().remove(1)], None, &[false, true]);
        let same = || replica(Some((2, 20)), 60, "b");
        check(vec![same(), two().remove(1)], None, &[false, false]);
        check(vec![replica(None, 1, "a"), replica(None, 2, "b")], None, &[true, false]);
        check(vec![replica(None, 1, "a"), replica(None, 2, "a")], None, &[false, false]);
        let away = Replica { status: None, ..same() };
        check(vec![same(), away], None, &[false, true]);
    }
}
