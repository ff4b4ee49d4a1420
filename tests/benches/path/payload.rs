//! Results from small to large: the edge compared with the relay, with the same tool.

use std::time::Duration;

use drawbridge_tests::TestMesh;
use serde_json::json;

use crate::{
    baselines::{Baselines, RelayTool, channel},
    client::{Message, WITH_SESSIONS},
    load::Load,
    paths::{Path, Tokens},
    report::{median, quantile},
    tools::Tools,
};

/// The tool service.
pub(crate) type Service = Tools<10>;

/// The sizes of the result's text, in bytes.
const SIZES: [u32; 6] = [1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(100);
const MEASURED: Duration = Duration::from_millis(250);

/// The cost of sequential calls with a result of one size: medians of the rounds.
pub(crate) struct Payload {
    pub(crate) bytes: u32,
    pub(crate) edge: CallCost,
    pub(crate) relay: CallCost,
    /// The edge's time over the relay's in the same round.
    pub(crate) ratio: f64,
}

/// The cost of a call, in microseconds.
#[derive(Default)]
pub(crate) struct CallCost {
    /// The median latency.
    pub(crate) latency: f64,
    /// The processor time of the whole path.
    pub(crate) processor: f64,
}

pub(crate) async fn all(mesh: &TestMesh, baselines: &mut Baselines) -> Vec<Payload> {
    let (service, address) = Service::start(mesh.transaction_keys()).await;
    let url = mesh.grpc_url(address);
    let edge = mesh.edge(&[("few", &url)], |_| {}).await;
    let tokens = Tokens::of(mesh, Service::rpc(0)).await;
    let tool = RelayTool {
        name: Service::tool(0),
        path: Service::path(0),
        channel: channel(address),
        tokens: Some(tokens.clone()),
    };
    let relay = baselines.relay_to(tool);
    let mut payloads = Vec::new();
    for bytes in SIZES {
        let arguments = json!({ "bytes": bytes });
        let call = Message::call(WITH_SESSIONS, &tokens.access, &Service::tool(0), &arguments);
        tokens.renew(mesh).await;
        let paths = [
            Path::http(
                "edge",
                edge.hosted.running.address.tcp().expect("an address"),
                call.clone(),
            ),
            Path::http("relay-tool", relay, call),
        ];
        payloads.push(measure(bytes, &paths).await);
        eprint!(".");
    }
    edge.hosted.stop().await;
    service.stop().await;
    payloads
}

async fn measure(bytes: u32, paths: &[Path; 2]) -> Payload {
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for (path, costs) in paths.iter().zip(&mut costs) {
            let duration = if round == 0 { WARM_UP } else { MEASURED };
            let mut sample = Load::new(1, duration).run(async || path.ready().await).await;
            sample.latencies.sort_unstable();
            if round > 0 {
                costs.push((quantile(&sample.latencies, 0.5), sample.processor));
            }
        }
    }
    let [edge, relay] = costs;
    let ratio = median(edge.iter().zip(&relay).map(|(edge, relay)| edge.0 / relay.0).collect());
    let medians = |costs: &[(f64, f64)]| CallCost {
        latency: median(costs.iter().map(|costs| costs.0).collect()),
        processor: median(costs.iter().map(|costs| costs.1).collect()),
    };
    Payload { bytes, edge: medians(&edge), relay: medians(&relay), ratio }
}
