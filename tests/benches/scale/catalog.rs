//! A catalog of thousands of tools compared with one of ten: lists, and calls by name.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    Few, Many, World,
    args::Args,
    client::{Connection, Message, WITH_SESSIONS},
    load::Load,
    memory::{Caller, number},
    process::EdgeProcess,
    report::{Report, median, quantile},
};

const LIST_MS_MAX: f64 = 5.0;
/// The noise between two equal edges.
const CALL_RATIO_MAX: f64 = 1.1;
const CONNECTIONS: usize = 16;
const MEASURED: Duration = Duration::from_millis(300);

pub(crate) async fn run(world: &World, args: &Args, report: &mut Report) {
    let (service, address) = Many::start(world.mesh.transaction_keys()).await;
    let few = EdgeProcess::start(&world.mesh, &[("few", world.few)]).await;
    let many = EdgeProcess::start(&world.mesh, &[("many", address)]).await;
    report.add("5,000 tools: memory of a ready edge", many.memory() / 1024.0, "MiB");
    lists(world, args, report, [&few, &many]).await;
    report.add("5,000 tools: memory after lists", many.memory() / 1024.0, "MiB");
    calls(world, args, report, [&few, &many]).await;
    few.stop().await;
    many.stop().await;
    service.stop().await;
}

/// The measurements of one complete list.
struct ListSample {
    milliseconds: f64,
    pages: usize,
    tools: usize,
    bytes: usize,
}

async fn lists(world: &World, args: &Args, report: &mut Report, [few, many]: [&EdgeProcess; 2]) {
    let mut connections =
        [Connection::open(few.address).await, Connection::open(many.address).await];
    let mut times = [Vec::new(), Vec::new()];
    let mut processor = Duration::ZERO;
    let mut last = None;
    // The first round is a warm-up.
    for round in 0..=args.rounds {
        for (which, connection) in connections.iter_mut().enumerate() {
            let before = many.processor();
            let listed = list(connection, &world.token).await;
            if round > 0 {
                times[which].push(listed.milliseconds);
                processor += many.processor() - before;
            }
            last = Some(listed);
        }
    }
    let (listed, [few, many]) = (last.expect("a list"), times.map(median));
    assert_eq!(listed.tools, 5000);
    let processor = processor.as_secs_f64() * 1000.0 / number(args.rounds);
    report.add("10 tools: the list for one caller", few, "ms");
    report.at_most(LIST_MS_MAX, "5,000 tools: the whole list for one caller, warm", many, "ms");
    report.add("5,000 tools: the edge's processor time for it", processor, "ms");
    report.add("5,000 tools: pages", number(listed.pages), "");
    report.add("5,000 tools: size of the list", number(listed.bytes) / 1024.0, "KiB");
}

/// Lists all tools, page by page. The time excludes the client's work on a page.
async fn list(connection: &mut Connection, token: &str) -> ListSample {
    let mut listed = ListSample { milliseconds: 0.0, pages: 0, tools: 0, bytes: 0 };
    let mut cursor = Value::Null;
    loop {
        let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
        let request = Message::new(WITH_SESSIONS, token, "tools/list", params);
        let started = Instant::now();
        let page = connection.post(&request).await;
        listed.milliseconds += started.elapsed().as_secs_f64() * 1000.0;
        listed.bytes += page.len();
        listed.pages += 1;
        let page: Value = serde_json::from_slice(&page).expect("JSON");
        listed.tools += page["result"]["tools"].as_array().expect("tools").len();
        cursor = page["result"]["nextCursor"].clone();
        if cursor.is_null() {
            return listed;
        }
    }
}

async fn calls(world: &World, args: &Args, report: &mut Report, [few, many]: [&EdgeProcess; 2]) {
    let call =
        |tool: &str| Message::call(WITH_SESSIONS, &world.token, tool, &json!({ "bytes": 100 }));
    let (one, other) = (call(&Few::tool(5)), call(&Many::tool(2500)));
    let paths = [(few, &one), (many, &other)];
    let (mut rates, mut single_medians) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..=args.rounds {
        for (which, (edge, call)) in paths.iter().enumerate() {
            let open = async || Caller::with(edge, (*call).clone()).await;
            let busy = Load::new(CONNECTIONS, MEASURED).run(&open).await;
            let mut single = Load::new(1, MEASURED).run(&open).await;
            if round > 0 {
                rates[which].push(busy.rate);
                single_medians[which].push(quantile(&mut single.latencies, 50));
            }
        }
    }
    let ratio = |[one, other]: &[Vec<f64>; 2]| {
        median(one.iter().zip(other).map(|(one, other)| other / one).collect())
    };
    report.add("10 tools: calls by name", median(rates[0].clone()), "/s");
    report.add("5,000 tools: calls by name", median(rates[1].clone()), "/s");
    report.add("10 tools: a single call at the median", median(single_medians[0].clone()), "µs");
    report.add("5,000 tools: a single call at the median", median(single_medians[1].clone()), "µs");
    let name = "5,000 tools: time of a call over that with 10";
    report.at_most(CALL_RATIO_MAX, name, 1.0 / ratio(&rates), "");
    report.at_most(CALL_RATIO_MAX, format!("{name}, single"), ratio(&single_medians), "");
}
