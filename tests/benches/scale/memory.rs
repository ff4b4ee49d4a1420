//! The memory of an idle edge and of idle sessions.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::{
    Few, World,
    args::Args,
    client::{Connection, Message, WITH_SESSIONS},
    load::{self, Load},
    many,
    process::EdgeProcess,
    report::Report,
};

const IDLE_MIB_MAX: f64 = 30.0;
const SESSION_KIB_MAX: f64 = 20.0;
const CONNECTIONS: usize = 16;
const MEASURED: Duration = Duration::from_secs(3);
/// The time after which freed memory is returned to the system.
pub(crate) const SETTLE_TIME: Duration = Duration::from_secs(3);

pub(crate) async fn run(world: &World, args: &Args, report: &mut Report) {
    let edge = EdgeProcess::start(&world.mesh, &[("few", world.few)]).await;
    report.at_most(IDLE_MIB_MAX, "memory of a ready edge", edge.memory() / 1024.0, "MiB");
    report.add("of it anonymous, not the program's own pages", edge.anonymous() / 1024.0, "MiB");
    Load::new(CONNECTIONS, MEASURED).run(async || Caller::open(world, &edge).await).await;
    report.add("memory right after a load", edge.memory() / 1024.0, "MiB");
    sleep(SETTLE_TIME).await;
    let idle = edge.memory();
    report.at_most(IDLE_MIB_MAX, "memory of an idle edge after it", idle / 1024.0, "MiB");
    report.add("of it anonymous, not the program's own pages", edge.anonymous() / 1024.0, "MiB");
    let mut connection = Connection::open(edge.address).await;
    for _ in 0..many(args) {
        connection.initialize(&world.token).await;
    }
    sleep(SETTLE_TIME).await;
    let name = format!("memory of an idle session, of {}", many(args));
    report.at_most(SESSION_KIB_MAX, name, (edge.memory() - idle) / number(many(args)), "KiB");
    edge.stop().await;
}

#[expect(clippy::cast_precision_loss, reason = "it is a small count")]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}

/// Calls a tool of the small service repeatedly.
pub(crate) struct Caller {
    connection: Connection,
    call: Message,
}

impl Caller {
    pub(crate) async fn open(world: &World, edge: &EdgeProcess) -> Self {
        let call =
            Message::call(WITH_SESSIONS, &world.token, &Few::tool(0), &json!({ "bytes": 100 }));
        Self::with(edge, call).await
    }

    /// A caller after one successful call.
    pub(crate) async fn with(edge: &EdgeProcess, call: Message) -> Self {
        let mut connection = Connection::open(edge.address).await;
        let answer = connection.post(&call).await;
        assert!(answer.windows(9).any(|part| part == b"\"content\""), "{answer:?}");
        Self { connection, call }
    }
}

impl load::Caller for Caller {
    async fn call(&mut self) {
        self.connection.post(&self.call).await;
    }
}
