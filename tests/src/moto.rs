use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use url::Url;

use crate::tools::{program, python, tools};

const START_DEADLINE: Duration = Duration::from_secs(60);

/// AWS's APIs, served from memory by moto.
#[derive(Debug)]
pub struct Moto {
    child: Child,
    /// The URL of all APIs.
    pub url: Url,
}

impl Moto {
    /// Starts a server on a free port and waits until it responds.
    pub async fn start() -> Self {
        let packages = program(tools().join("moto"));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a port").port();
        let child = Command::new(python())
            .args(["-m", "moto.server", "--host", "127.0.0.1", "--port", &port.to_string()])
            .env("PYTHONPATH", packages)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python");
        let url = format!("http://127.0.0.1:{port}").parse().expect("a URL");
        let moto = Self { child, url };
        let started = Instant::now();
        while reqwest::get(moto.url.clone()).await.is_err() {
            assert!(started.elapsed() < START_DEADLINE, "moto does not respond");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        moto
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // The error of an exited process is ignored.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
