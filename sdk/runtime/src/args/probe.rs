//! The command `probe` of every service: an image without a shell probes a service with it.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use clap::{Arg, ArgMatches, Command};
use url::Url;

use crate::urls::parse_url;

const NAME: &str = "probe";
const URLS: &str = "url";
/// How long an address may take to accept a connection, and to send a part of its response.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The most of a response that is read.
const RESPONSE_BYTES_MAX: u64 = 64 * 1024;

/// Why a URL was not probed successfully.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("cannot probe {url}: only http is supported, with a host")]
    Url { url: String },
    #[error("cannot resolve the host of {url}")]
    Resolve { url: String, source: io::Error },
    #[error("cannot reach {address} for {url}")]
    Unreachable { url: String, address: SocketAddr, source: io::Error },
    #[error("{address} answers {url} with {status}: {body}")]
    Refused { url: String, address: SocketAddr, status: String, body: String },
}

/// Adds the command to those of a service. Options that the service requires are not required for
/// it.
pub(super) fn add(command: Command) -> Command {
    let urls = Arg::new(URLS)
        .value_name("URL")
        .help("What to request, such as `http://127.0.0.1:7181/readyz`")
        .required(true)
        .num_args(1..)
        .value_parser(parse_url);
    let probe = Command::new(NAME)
        .about("Request URLs, and succeed if every address of every host answers with status 200")
        .arg(urls);
    command.subcommand(probe).subcommand_negates_reqs(true)
}

/// Runs the command, if the command line names it.
pub(super) fn run(matches: &ArgMatches) -> Option<Result<(), ProbeError>> {
    let probe = matches.subcommand_matches(NAME)?;
    let mut urls = probe.get_many::<Url>(URLS).into_iter().flatten();
    Some(urls.try_for_each(probe_url))
}

fn probe_url(url: &Url) -> Result<(), ProbeError> {
    if url.scheme() != "http" || !url.has_host() {
        return Err(ProbeError::Url { url: url.to_string() });
    }
    let addresses = url
        .socket_addrs(|| None)
        .map_err(|source| ProbeError::Resolve { url: url.to_string(), source })?;
    addresses.into_iter().try_for_each(|address| {
        let (status, body) = request(url, address).map_err(|source| ProbeError::Unreachable {
            url: url.to_string(),
            address,
            source,
        })?;
        if status.starts_with("200 ") || status == "200" {
            return Ok(());
        }
        Err(ProbeError::Refused { url: url.to_string(), address, status, body })
    })
}

/// The status and the body of a response. `Host` is the address, which admin ports accept.
fn request(url: &Url, address: SocketAddr) -> io::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let head = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut response = Vec::new();
    stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut response)?;
    let response = String::from_utf8_lossy(&response);
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let status = head.lines().next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.ok_or_else(|| io::Error::other("the response is not HTTP/1.1"))?;
    Ok((status.to_owned(), body.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;
    use crate::{ServiceArgs, args::service_command, error_chain};

    #[derive(Debug, clap::Args)]
    struct Sample {
        #[arg(long)]
        required: String,
    }

    /// A server that sends this response once.
    fn server(response: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            let read = stream.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            assert!(head.starts_with("GET /readyz?verbose HTTP/1.1\r\n"), "{head}");
            assert!(head.contains(&format!("Host: {address}\r\n")), "{head}");
            stream.write_all(response.as_bytes()).unwrap();
        });
        address
    }

    fn probe(arguments: &[&str]) -> Result<(), String> {
        let command = service_command::<ServiceArgs<Sample>>("edge", "");
        let matches = command.try_get_matches_from([&["edge", "probe"], arguments].concat());
        run(&matches.map_err(|error| error.to_string())?)
            .expect("the command")
            .map_err(|error| error_chain(&error))
    }

    #[test]
    fn a_probe_succeeds_if_every_url_answers_with_200() {
        let ready = || {
            let address = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            format!("http://{address}/readyz?verbose")
        };
        assert_eq!(probe(&[&ready(), &ready()]), Ok(()));
        let address = server("HTTP/1.1 503 Service Unavailable\r\n\r\nstopping");
        let error = probe(&[&ready(), &format!("http://{address}/readyz?verbose")]).unwrap_err();
        assert!(error.ends_with("with 503 Service Unavailable: stopping"), "{error}");
    }

    #[test]
    fn a_probe_of_what_cannot_be_reached_fails_with_the_reason() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = probe(&[&format!("http://localhost:{port}/readyz")]).unwrap_err();
        assert!(error.contains("cannot reach") && error.contains("refused"), "{error}");
        let error = probe(&["https://localhost/readyz"]).unwrap_err();
        assert!(error.contains("only http is supported"), "{error}");
        let error = probe(&[]).unwrap_err();
        assert!(error.contains("<URL>"), "{error}");
    }
}
