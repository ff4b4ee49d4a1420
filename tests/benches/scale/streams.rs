//! Clients that listen, of both kinds, and ordinary clients beside them.

use std::{net::Ipv4Addr, time::Duration};

use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    World,
    args::Args,
    client::{Connection, Message, STATELESS, WITH_SESSIONS},
    load::{Load, Sample},
    many,
    memory::{Caller, REST, number},
    process::EdgeProcess,
    report::{Report, quantile},
};

const STREAM_KIB_MAX: f64 = 20.0;
const ALL_MIB_MAX: f64 = 250.0;
const P99_RATIO_MAX: f64 = 2.0;
/// Ordinary clients, and how long each rests between two calls.
const ORDINARY: usize = 20;
const PAUSE: Duration = Duration::from_millis(20);
const WITHOUT: Duration = Duration::from_secs(6);
/// Longer than streams take to show once that they are open.
const BESIDE: Duration = Duration::from_secs(16);
/// How many streams are opened at once.
const AT_ONCE: usize = 32;
/// Addresses that they come from, 127.0.0.2 and those after it: each has ports of its own.
const ADDRESSES: usize = 16;

/// How a client listens.
#[derive(Clone, Copy)]
enum Kind {
    /// GET in a session.
    Session,
    /// `subscriptions/listen`.
    Subscription,
}

/// A client that listens.
struct Listener {
    _connection: Connection,
    _stream: Response<Incoming>,
}

pub(crate) async fn run(world: &World, args: &Args, report: &mut Report) {
    for (kind, name) in
        [(Kind::Session, "GET of a session"), (Kind::Subscription, "subscriptions/listen")]
    {
        one_kind(world, args, report, (kind, name)).await;
    }
}

async fn one_kind(world: &World, args: &Args, report: &mut Report, (kind, name): (Kind, &str)) {
    let edge = EdgeProcess::start(&world.mesh, &[("few", world.few)]).await;
    let ordinary = async |lasts| {
        let load = Load { connections: ORDINARY, lasts, pause: PAUSE };
        load.run(async || Caller::open(world, &edge).await).await
    };
    let before = ordinary(WITHOUT).await;
    sleep(REST).await;
    let without = edge.memory();
    let listeners = open(world, many(args), &edge, kind).await;
    sleep(REST).await;
    let (with, processor) = (edge.memory(), edge.processor());
    let each = (with - without) / number(many(args));
    report.at_most(
        STREAM_KIB_MAX,
        format!("{name}: memory of each of {}", many(args)),
        each,
        "KiB",
    );
    report.at_most(ALL_MIB_MAX, format!("{name}: memory in all"), with / 1024.0, "MiB");
    sleep(REST).await;
    let resting = (edge.processor() - processor).as_secs_f64() / REST.as_secs_f64() * 100.0;
    report.add(format!("{name}: processor time at rest, of one processor"), resting, "%");
    let beside = ordinary(BESIDE).await;
    report.add(format!("{name}: memory after a load beside them"), edge.memory() / 1024.0, "MiB");
    drop(listeners);
    sleep(REST).await;
    let after = ordinary(WITHOUT).await;
    report.add(format!("{name}: memory once they are gone"), edge.memory() / 1024.0, "MiB");
    edge.stop().await;
    compare(report, name, (before, beside, after));
}

fn compare(report: &mut Report, name: &str, (before, mut beside, after): (Sample, Sample, Sample)) {
    let mut without: Vec<_> = before.latencies.into_iter().chain(after.latencies).collect();
    for hundredths in [50, 99] {
        let (one, other) =
            (quantile(&mut beside.latencies, hundredths), quantile(&mut without, hundredths));
        report.add(
            format!("{name}: p{hundredths} of {ORDINARY} ordinary clients without"),
            other,
            "µs",
        );
        report.add(
            format!("{name}: p{hundredths} of {ORDINARY} ordinary clients beside"),
            one,
            "µs",
        );
        if hundredths == 99 {
            report.at_most(
                P99_RATIO_MAX,
                format!("{name}: p99 beside over p99 without"),
                one / other,
                "",
            );
        }
    }
}

/// Opens so many streams, and waits for the first bytes of each.
async fn open(world: &World, many: usize, edge: &EdgeProcess, kind: Kind) -> Vec<Listener> {
    let mut opening = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (token, address) = (world.token.clone(), edge.address);
        let count = many / AT_ONCE + usize::from(worker < many % AT_ONCE);
        let last = u8::try_from(2 + worker % ADDRESSES).expect("an address");
        let from = Ipv4Addr::new(127, 0, 0, last);
        opening.spawn(async move {
            let mut listeners = Vec::with_capacity(count);
            for _ in 0..count {
                listeners
                    .push(listen(Connection::open_from(from, address).await, &token, kind).await);
            }
            listeners
        });
    }
    opening.join_all().await.into_iter().flatten().collect()
}

async fn listen(mut connection: Connection, token: &str, kind: Kind) -> Listener {
    let (method, message) = match kind {
        Kind::Session => {
            let session = connection.initialize(token).await;
            let call = Message::new(WITH_SESSIONS, token, "", json!({})).within(&session);
            let mut headers = HeaderMap::new();
            for name in ["accept", "authorization", "mcp-protocol-version", "mcp-session-id"] {
                headers.insert(name, call.headers[name].clone());
            }
            (Method::GET, Message { headers, body: Default::default() })
        }
        Kind::Subscription => {
            let params = json!({ "notifications": { "toolsListChanged": true } });
            (Method::POST, Message::new(STATELESS, token, "subscriptions/listen", params))
        }
    };
    let mut stream = connection.send(method, &message).await;
    let first = stream.body_mut().frame().await.expect("a frame").expect("a stream");
    assert!(first.is_data());
    Listener { _connection: connection, _stream: stream }
}
