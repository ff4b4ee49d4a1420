//! Work that blocks a thread respects deadline, cancellation and shutdown.

use std::{fs, net::TcpListener, process::Stdio, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use drawbridge_tests::{Client, TestMesh, repository, uncached};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};
use url::Url;

/// Far more than the drain timeout, and far less than the work in progress would take.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// The processor time of a process that is working, in clock ticks of 10 ms. Reading a PDF stops
/// after ten seconds of wall-clock time, of which a busy machine gives it few.
const WORKING_TICKS: u64 = 30;

/// A service in its own process, without mTLS.
struct Process {
    child: Child,
    url: Url,
}

impl Process {
    async fn start(program: &str, mesh: &TestMesh, arguments: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let child = Command::new(program)
            .args([
                "--listen",
                &address.to_string(),
                "--admin-listen",
                "127.0.0.1:0",
                "--log",
                "warn",
            ])
            .args(["--drain-delay-ms", "0", "--drain-timeout-ms", "3000"])
            .args(["--auth-jwks-url", mesh.transaction_keys().as_str()])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let mut process = Self { child, url: format!("http://{address}").parse().expect("a URL") };
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert_eq!(process.child.try_wait().expect("a state"), None, "{program} has exited");
            sleep(Duration::from_millis(20)).await;
        }
        process
    }

    fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The processor time that it has used.
    fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("a process");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        fields
            .split_whitespace()
            .nth(11)
            .and_then(|ticks| ticks.parse().ok())
            .expect("the user time")
    }

    /// Waits until it has used `WORKING_TICKS` more.
    async fn wait_until_busy(&self) {
        let before = self.ticks();
        while self.ticks() < before + WORKING_TICKS {
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn stop(mut self) {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("an id");
        kill_process(id, Signal::TERM).expect("a signal");
        let status = timeout(STOP_TIMEOUT, self.child.wait()).await;
        let status = status.expect("a stop in time").expect("an exit");
        assert!(status.success(), "{status}");
    }
}

/// A mesh without mTLS, like the service's process.
async fn mesh() -> TestMesh {
    TestMesh::with(|config| {
        config.mtls = false;
        "info".clone_into(&mut config.telemetry.log);
    })
    .await
}

/// A client of this user at an edge in front of this service alone.
async fn client(
    mesh: &TestMesh,
    namespace: &str,
    process: &Process,
    user: &str,
) -> (Client, drawbridge_tests::Edge) {
    let edge = mesh.edge(&[(namespace, &process.url)], uncached).await;
    (edge.client(&mesh.client(user).await), edge)
}

/// A tree with one file of a single line of 900,000 equal bytes.
fn tree() -> TempDir {
    let tree = tempfile::tempdir().expect("a folder");
    fs::write(tree.path().join("a.txt"), "A".repeat(900_000)).expect("a file");
    tree
}

#[tokio::test]
async fn a_query_is_bounded_and_only_the_start_of_a_long_line_is_searched() {
    let tree = tree();
    let root = tree.path().to_owned();
    let mesh = TestMesh::with(|config| config.code_root = root).await;
    let alice = mesh.client("alice").await;
    let query = |length: usize| json!({ "query": format!("{}B", "A".repeat(length)) });
    let reply = alice.call_tool("code_search", query(20_000)).await;
    assert!(reply.message().contains("must have at most 4096 bytes"), "{}", reply.message());
    let reply = alice.call_tool("code_search", query(500)).await;
    assert_eq!(reply.json["result"]["structuredContent"]["lines_cut"], 1, "{reply:?}");
}

#[tokio::test]
async fn the_code_service_stops_during_an_uninterruptible_search() {
    let (tree, mesh) = (tree(), mesh().await);
    let root = tree.path().to_str().expect("a path");
    // With raised limits, a search within one line takes as long as before the limits existed.
    let limits = ["--query-bytes-max", "40000", "--line-bytes-max", "1000000", "--root", root];
    let process = Process::start(env!("CARGO_BIN_EXE_code-process"), &mesh, &limits).await;
    let (alice, _edge) = client(&mesh, "code", &process, "alice").await;
    let query = format!("{}B", "A".repeat(20_000));
    let searching =
        tokio::spawn(
            async move { alice.call_tool("code_search", json!({ "query": query })).await },
        );
    process.wait_until_busy().await;
    process.stop().await;
    let reply = searching.await.expect("a reply");
    assert!(!reply.message().is_empty(), "{reply:?}");
}

/// A PDF of one page with one line of `cells` cells that all look like labels.
fn pdf(cells: usize) -> Vec<u8> {
    let cells = " (due date) Tj 20 0 Td".repeat(cells);
    // Without a second line, the search for a value would stop early.
    let content = format!("BT /F 1 Tf 1 0 0 1 0 700 Tm{cells} 1 0 0 1 0 600 Tm (below) Tj ET");
    let objects = [
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_owned(),
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F 4 0 R>>>>/Contents 5 0 R>>"
            .to_owned(),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>".to_owned(),
        format!("<</Length {}>>\nstream\n{content}\nendstream", content.len()),
    ];
    let (mut pdf, mut offsets) = ("%PDF-1.4\n".to_owned(), String::new());
    for (object, number) in objects.iter().zip(1..) {
        offsets += &format!("{:010} 00000 n \n", pdf.len());
        pdf += &format!("{number} 0 obj\n{object}\nendobj\n");
    }
    let start = pdf.len();
    pdf += &format!(
        "xref\n0 6\n0000000000 65535 f \n{offsets}trailer\n<</Size 6/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n"
    );
    pdf.into()
}

#[tokio::test]
async fn the_invoices_service_stops_while_reading_a_hostile_pdf() {
    let mesh = mesh().await;
    let database = ["--database-url", "sqlite::memory:"];
    let process = Process::start(env!("CARGO_BIN_EXE_invoices-process"), &mesh, &database).await;
    let (carol, _edge) = client(&mesh, "invoices", &process, "carol").await;
    let document =
        json!({ "document": BASE64_STANDARD.encode(pdf(15_000)), "media_type": "application/pdf" });
    let reading = tokio::spawn(async move { carol.call_tool("invoices_extract", document).await });
    process.wait_until_busy().await;
    process.stop().await;
    let reply = reading.await.expect("a reply");
    assert!(!reply.message().is_empty(), "{reply:?}");
}

#[tokio::test]
async fn a_hostile_pdf_is_abandoned_and_the_next_document_is_read() {
    let mesh = mesh().await;
    let one = ["--database-url", "sqlite::memory:", "--documents-max", "1"];
    let process = Process::start(env!("CARGO_BIN_EXE_invoices-process"), &mesh, &one).await;
    let (carol, _edge) = client(&mesh, "invoices", &process, "carol").await;
    let read = async |document: &[u8], media_type: &str| {
        let document =
            json!({ "document": BASE64_STANDARD.encode(document), "media_type": media_type });
        carol.call_tool("invoices_extract", document).await
    };
    let refused = read(&pdf(15_000), "application/pdf").await;
    assert!(refused.message().contains("is too complex for an invoice"), "{}", refused.message());
    let sample = fs::read(repository().join("services/tools/invoices/samples/invoice.ubl.xml"))
        .expect("a file");
    let reply = read(&sample, "application/xml").await;
    assert_eq!(
        reply.json["result"]["structuredContent"]["invoice"]["number"], "DB-2026-0042",
        "{reply:?}"
    );
}

/// A runtime of `#[tokio::main]` waits for blocking tasks at shutdown.
#[test]
fn no_service_waits_for_blocking_work_at_shutdown() {
    let folders = ["services", "services/tools"].map(|folder| repository().join(folder));
    let services = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    let mut checked = 0;
    for service in services {
        let main = service.expect("an entry").path().join("src/main.rs");
        if main.ancestors().nth(2).is_some_and(|folder| folder.ends_with("tools")) {
            continue;
        }
        let text = fs::read_to_string(&main).expect("a file");
        assert!(
            ["run_main(", "run_service("].iter().any(|main| text.contains(main))
                && !text.contains("#[tokio::main"),
            "{}",
            main.display()
        );
        checked += 1;
    }
    assert!(checked >= 6);
}
