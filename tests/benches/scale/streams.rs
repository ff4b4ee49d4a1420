//! Subscribers of both kinds, and ordinary clients in parallel.

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
    memory::{Caller, SETTLE_TIME, number},
    process::EdgeProcess,
    report::{Report, quantile},
};

const STREAM_KIB_MAX: f64 = 20.0;
const ALL_MIB_MAX: f64 = 250.0;
const P99_RATIO_MAX: f64 = 2.0;
/// The number of ordinary clients, and their pause between two calls.
const ORDINARY: usize = 20;
const PAUSE: Duration = Duration::from_millis(20);
const WITHOUT_SUBSCRIBERS: Duration = Duration::from_secs(6);
/// Longer than the keep-alive interval of streams.
const WITH_SUBSCRIBERS: Duration = Duration::from_secs(16);
/// The number of streams that are opened concurrently.
const OPENERS: usize = 32;
/// The number of client addresses, from 127.0.0.2 on: each has its own ports.
const ADDRESSES: usize = 16;

/// How a client subscribes.
#[derive(Clone, Copy)]
enum Kind {
    /// GET in a session.
    Session,
    /// `subscriptions/listen`.
    Subscription,
}

/// An open subscription.
struct Subscriber {
    _connection: Connection,
    _stream: Response<Incoming>,
}

pub(crate) async fn run(world: &World, args: &Args, report: &mut Report) {
    for (kind, name) in
        [(Kind::Session, "GET of a session"), (Kind::Subscription, "subscriptions/listen")]
    {
        run_kind(world, args, report, (kind, name)).await;
    }
}

async fn run_kind(world: &World, args: &Args, report: &mut Report, (kind, name): (Kind, &str)) {
    let edge = EdgeProcess::start(&world.mesh, &[("few", world.few)]).await;
    let ordinary = async |duration| {
        let load = Load { connections: ORDINARY, duration, pause: PAUSE };
        load.run(async || Caller::open(world, &edge).await).await
    };
    let before = ordinary(WITHOUT_SUBSCRIBERS).await;
    sleep(SETTLE_TIME).await;
    let without = edge.memory();
    let subscribers = open(world, many(args), &edge, kind).await;
    sleep(SETTLE_TIME).await;
    let (with, processor) = (edge.memory(), edge.processor());
    let each = (with - without) / number(many(args));
    report.at_most(
        STREAM_KIB_MAX,
        format!("{name}: memory of each of {}", many(args)),
        each,
        "KiB",
    );
    report.at_most(ALL_MIB_MAX, format!("{name}: total memory"), with / 1024.0, "MiB");
    sleep(SETTLE_TIME).await;
    let idle = (edge.processor() - processor).as_secs_f64() / SETTLE_TIME.as_secs_f64() * 100.0;
    report.add(format!("{name}: idle processor time, of one processor"), idle, "%");
    let during = ordinary(WITH_SUBSCRIBERS).await;
    report.add(format!("{name}: memory after a parallel load"), edge.memory() / 1024.0, "MiB");
    drop(subscribers);
    sleep(SETTLE_TIME).await;
    let after = ordinary(WITHOUT_SUBSCRIBERS).await;
    report.add(format!("{name}: memory after they closed"), edge.memory() / 1024.0, "MiB");
    edge.stop().await;
    compare(report, name, (before, during, after));
}

fn compare(report: &mut Report, name: &str, (before, mut during, after): (Sample, Sample, Sample)) {
    let mut without: Vec<_> = before.latencies.into_iter().chain(after.latencies).collect();
    for hundredths in [50, 99] {
        let (one, other) =
            (quantile(&mut during.latencies, hundredths), quantile(&mut without, hundredths));
        report.add(
            format!("{name}: p{hundredths} of {ORDINARY} ordinary clients without"),
            other,
            "µs",
        );
        report.add(
            format!("{name}: p{hundredths} of {ORDINARY} ordinary clients with them"),
            one,
            "µs",
        );
        if hundredths == 99 {
            report.at_most(
                P99_RATIO_MAX,
                format!("{name}: p99 with over p99 without"),
                one / other,
                "",
            );
        }
    }
}

/// Opens `many` streams, and waits for the first bytes of each.
async fn open(world: &World, many: usize, edge: &EdgeProcess, kind: Kind) -> Vec<Subscriber> {
    let mut opening = JoinSet::new();
    for worker in 0..OPENERS {
        let (token, address) = (world.token.clone(), edge.address);
        let count = many / OPENERS + usize::from(worker < many % OPENERS);
        let last = u8::try_from(2 + worker % ADDRESSES).expect("an address");
        let from = Ipv4Addr::new(127, 0, 0, last);
        opening.spawn(async move {
            let mut subscribers = Vec::with_capacity(count);
            for _ in 0..count {
                subscribers.push(
                    subscribe(Connection::open_from(from, address).await, &token, kind).await,
                );
            }
            subscribers
        });
    }
    opening.join_all().await.into_iter().flatten().collect()
}

async fn subscribe(mut connection: Connection, token: &str, kind: Kind) -> Subscriber {
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
    Subscriber { _connection: connection, _stream: stream }
}
