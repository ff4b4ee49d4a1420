use std::{net::Ipv4Addr, path::Path, process::Command};

use tokio::net::TcpStream;
use uuid::Uuid;

use super::{
    DependencyError,
    server::{Server, prepare},
};

const PROGRAM: &str = "redis-server";

/// A Redis server without persistence.
#[derive(Debug)]
pub struct Redis {
    /// The process.
    pub server: Server,
    /// Its port on loopback.
    pub port: u16,
    /// Its URL, with the password.
    pub url: String,
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn start(program: &Path) -> Result<Self, DependencyError> {
        Self::start_with_config(program, "").await
    }

    /// As [`Self::start`], with config lines that override the defaults.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn start_with_config(
        program: &Path,
        overrides: &str,
    ) -> Result<Self, DependencyError> {
        let (folder, reserved) = prepare(PROGRAM)?;
        let port = reserved.number;
        let password = Uuid::new_v4();
        let config = format!(
            "port {port}\nbind {}\nrequirepass {password}\nsave \"\"\nappendonly no\n{overrides}\n",
            Ipv4Addr::LOCALHOST
        );
        let mut command = Command::new(program);
        // By standard input: a command line would show the password to other users.
        command.arg("-");
        let server = Server::run(PROGRAM, command, folder, vec![reserved], config.into())?;
        let url = format!("redis://:{password}@{}:{port}", Ipv4Addr::LOCALHOST);
        let mut redis = Self { server, port, url };
        redis.wait_until_serving().await?;
        Ok(redis)
    }

    /// Restarts it on the same port after it has exited. It is empty.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn restart(&mut self) -> Result<(), DependencyError> {
        self.server.restart()?;
        self.wait_until_serving().await
    }

    async fn wait_until_serving(&mut self) -> Result<(), DependencyError> {
        let address = (Ipv4Addr::LOCALHOST, self.port);
        self.server.wait_until(|| async move { TcpStream::connect(address).await.is_ok() }).await
    }
}
