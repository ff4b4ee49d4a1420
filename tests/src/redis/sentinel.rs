use std::{
    fs,
    process::{Child, Command, Stdio},
};

use ::redis::Client;
use tempfile::TempDir;

use super::{Node, PASSWORD, command, free_port, until};

/// A master and its replica, monitored by a sentinel.
#[derive(Debug)]
pub struct RedisSentinel {
    master: Node,
    _replica: Node,
    sentinel: Child,
    _folder: TempDir,
    /// Its URL. The first sentinel in it is dead.
    pub url: String,
}

impl RedisSentinel {
    /// Starts them and waits until the sentinel has discovered both.
    pub async fn start() -> Self {
        let master = Node::start("").await;
        let replica = Node::start(&format!("replicaof 127.0.0.1 {}", master.port())).await;
        until("replication", async || {
            replica.expect::<String>("INFO replication").await.contains("master_link_status:up")
        })
        .await;
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let config = format!(
            "port {port}\nbind 127.0.0.1\nrequirepass of-the-sentinel\n\
             sentinel monitor main 127.0.0.1 {} 1\n\
             sentinel auth-pass main {PASSWORD}\n\
             sentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n",
            master.port()
        );
        // A sentinel writes its state into its config file.
        fs::write(folder.path().join("sentinel.conf"), config).expect("a file");
        let sentinel = Command::new("redis-server")
            .args(["sentinel.conf", "--sentinel"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("a sentinel");
        let client =
            Client::open(format!("redis://:of-the-sentinel@127.0.0.1:{port}")).expect("a URL");
        until("the sentinel", async || {
            command::<Vec<Vec<String>>>(&client, "SENTINEL replicas main")
                .await
                .is_ok_and(|known| !known.is_empty())
        })
        .await;
        let dead = free_port();
        let url = format!(
            "redis-sentinel://:{PASSWORD}@127.0.0.1:{dead},127.0.0.1:{port}/main?sentinel_password=of-the-sentinel"
        );
        Self { master, _replica: replica, sentinel, _folder: folder, url }
    }

    /// Kills the master, without waiting for a failover.
    pub fn kill_master(&mut self) {
        self.master.redis.kill();
    }
}

impl Drop for RedisSentinel {
    fn drop(&mut self) {
        // INVARIANT: it is a child process, and only this waits for it.
        let _ = self.sentinel.kill();
        let _ = self.sentinel.wait();
    }
}
