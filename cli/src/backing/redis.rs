use std::{net::Ipv4Addr, path::Path, process::Command};

use tokio::net::TcpStream;
use uuid::Uuid;

use super::{
    BackingError,
    server::{Server, prepare},
};

const PROGRAM: &str = "redis-server";

/// A Redis, which keeps all in memory.
#[derive(Debug)]
pub struct Redis {
    /// The process.
    pub server: Server,
    /// Where it listens, on loopback.
    pub port: u16,
    /// Where it is, with its password.
    pub url: String,
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn start(program: &Path) -> Result<Self, BackingError> {
        Self::with(program, "").await
    }

    /// As [`Self::start`], with more lines of its config, which count more than those before.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn with(program: &Path, more: &str) -> Result<Self, BackingError> {
        let (folder, port) = prepare(PROGRAM)?;
        let password = Uuid::new_v4();
        let config = format!(
            "port {port}\nbind {}\nrequirepass {password}\nsave \"\"\nappendonly no\n{more}\n",
            Ipv4Addr::LOCALHOST
        );
        let mut command = Command::new(program);
        // On its standard input nobody else reads the password.
        command.arg("-");
        let server = Server::run(PROGRAM, command, folder, config.into())?;
        let url = format!("redis://:{password}@{}:{port}", Ipv4Addr::LOCALHOST);
        let mut redis = Self { server, port, url };
        redis.answers().await?;
        Ok(redis)
    }

    /// Starts it again after it has ended, where it was and empty.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn start_again(&mut self) -> Result<(), BackingError> {
        self.server.run_again()?;
        self.answers().await
    }

    async fn answers(&mut self) -> Result<(), BackingError> {
        let address = (Ipv4Addr::LOCALHOST, self.port);
        self.server.until(|| async move { TcpStream::connect(address).await.is_ok() }).await
    }
}
