//! `drawbridge top`: what services do now, from the metrics of their admin ports.

use std::{
    collections::VecDeque,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use drawbridge_mesh::state::{MeshArgs, MeshLookup};
use drawbridge_runtime::{bounded, error_chain};
use futures::future::join_all;

use self::figures::{Figures, Since};
use crate::{
    admin::{self, AdminTarget},
    scrape::Scrape,
};

mod figures;
mod plain;
mod screen;
mod terminal;

/// The largest response of an admin port, in bytes.
const SCRAPE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a scrape may take.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
/// Over which time the screen's figures are.
const WINDOW: Duration = Duration::from_secs(60);

/// What to show.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge top
  drawbridge top --once
  drawbridge top --admin edge-1=http://10.0.0.4:7181

On the screen, calls per second, latencies and outcomes are those of the last minute; with --once \
and --json, latencies and outcomes are those since the start of each service. Without a terminal, \
--once is implied.")]
pub struct TopArgs {
    /// The admin port of a service, as `http://host:port` or `name=http://host:port`. Repeat for
    /// more. Absent: those of the running mesh.
    #[arg(long, value_name = "[NAME=]URL", value_delimiter = ',')]
    admin: Vec<AdminTarget>,

    #[command(flatten)]
    mesh: MeshArgs,

    /// The interval between scrapes, in milliseconds.
    #[arg(
        long,
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(100..=60_000)
    )]
    interval_ms: u64,

    /// Print tables once, and exit.
    #[arg(long)]
    once: bool,

    /// Print the figures once as JSON, and exit.
    #[arg(long)]
    json: bool,
}

/// The last scrape of a service, or the error.
type Scraped = Result<Scrape, String>;

/// All services, scraped at one time.
#[derive(Clone, Debug)]
struct Round {
    at: Instant,
    /// As many as there are targets.
    scraped: Vec<Scraped>,
}

/// Scrapes services again and again.
#[derive(Debug)]
struct Scraper {
    title: String,
    targets: Vec<AdminTarget>,
    http: reqwest::Client,
    /// The rounds of the last [`WINDOW`], oldest first.
    rounds: VecDeque<Round>,
}

/// Runs `drawbridge top`.
///
/// # Errors
/// When no service is known, or the terminal cannot be used.
pub async fn run(args: TopArgs) -> anyhow::Result<()> {
    let mut scraper = Scraper::new(&args)?;
    let interval = Duration::from_millis(args.interval_ms);
    if !args.once && !args.json && std::io::stdout().is_terminal() {
        return terminal::run(scraper, interval).await;
    }
    scraper.scrape().await;
    tokio::time::sleep(interval).await;
    scraper.scrape().await;
    let figures = scraper.figures(Since::Start);
    if args.json {
        anstream::println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        anstream::println!("{}", plain::render(&figures));
    }
    if scraper.rounds.back().is_some_and(|round| round.scraped.iter().all(Result::is_err)) {
        bail!("no admin port could be read");
    }
    Ok(())
}

impl Scraper {
    fn new(args: &TopArgs) -> anyhow::Result<Self> {
        let (title, targets) = match args.admin.as_slice() {
            [] => match args.mesh.find()? {
                MeshLookup::Running(state) => {
                    (format!("mesh {}", state.name), admin::of_mesh(&state))
                }
                MeshLookup::None(advice) => bail!("no services: {advice}, or give --admin"),
            },
            given => (format!("{} services", given.len()), given.to_vec()),
        };
        let http = reqwest::Client::builder()
            .timeout(SCRAPE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .context("no HTTP client")?;
        Ok(Self { title, targets, http, rounds: VecDeque::new() })
    }

    /// Scrapes all services concurrently.
    async fn scrape(&mut self) {
        let scraping = self.targets.iter().map(|target| scrape(&self.http, target));
        let round = Round { at: Instant::now(), scraped: join_all(scraping).await };
        // One older round remains, so that the figures are those of a whole window.
        while self.rounds.get(1).is_some_and(|second| round.at - second.at > WINDOW) {
            self.rounds.pop_front();
        }
        self.rounds.push_back(round);
    }

    fn figures(&self, since: Since) -> Figures {
        Figures::new(&self.title, &self.targets, &self.rounds, since)
    }
}

async fn scrape(http: &reqwest::Client, target: &AdminTarget) -> Scraped {
    let url = target.url.join("/metrics").map_err(|error| error.to_string())?;
    let sent = http.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let response = sent.map_err(|error| error_chain(&error.without_url()))?;
    let body = http::Response::from(response).into_body();
    let body = bounded::read_body(body, SCRAPE_BYTES_MAX).await;
    let body = body.map_err(|error| error_chain(&error))?;
    Ok(Scrape::parse(&String::from_utf8_lossy(&body)))
}
