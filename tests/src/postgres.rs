use std::process::Command;

use drawbridge_cli::backing::{self, Programs};
use secrecy::ExposeSecret as _;

/// A PostgreSQL server of this test's own, in a folder of its own.
#[derive(Debug)]
pub struct Postgres {
    server: backing::Postgres,
    /// Where it listens, on loopback.
    pub port: u16,
}

impl Postgres {
    /// Starts a server on a free port and waits until it answers.
    pub async fn start() -> Self {
        let programs = Programs::find().postgres.expect(
            "PostgreSQL, which `make test` or `tests/setup.sh test` installs (Debian: postgresql)",
        );
        let server = backing::Postgres::start(&programs).await;
        let server = server.unwrap_or_else(|error| panic!("{error}: {error:?}"));
        Self { port: server.port, server }
    }

    /// Where it is, for Vault: `{{username}}` and `{{password}}` stand for those that Vault is given.
    pub fn connection_url(&self) -> String {
        self.server.connection_url()
    }

    /// The name and the password of the user who may do anything.
    pub fn owner(&self) -> (&str, &str) {
        let (name, password) = self.server.owner();
        (name, password.expose_secret())
    }

    /// Makes the schemas of the tool services.
    pub async fn migrate(&self) {
        backing::migrate(&self.server).await.unwrap_or_else(|error| panic!("{error:?}"));
    }

    /// Where it is, without a user.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What the server answers its owner, a line for each row.
    pub fn ask(&self, sql: &str) -> Result<Vec<String>, String> {
        let (owner, password) = self.owner();
        self.ask_as(owner, password, sql)
    }

    /// What the server answers this user.
    pub fn ask_as(&self, user: &str, password: &str, sql: &str) -> Result<Vec<String>, String> {
        let answer = Command::new(self.server.programs.join("psql"))
            .args([
                "--host=127.0.0.1",
                "--dbname=postgres",
                "--no-psqlrc",
                "--no-align",
                "--tuples-only",
            ])
            .args(["--set=ON_ERROR_STOP=1", "--quiet", "--no-password"])
            .args(["--port", &self.port.to_string(), "--username", user, "--command", sql])
            .env("PGPASSWORD", password)
            .output()
            .expect("psql");
        if !answer.status.success() {
            return Err(String::from_utf8_lossy(&answer.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&answer.stdout).lines().map(str::to_owned).collect())
    }

    /// The users that Vault has made and not yet taken away.
    pub fn leased_users(&self) -> Vec<String> {
        self.ask("select rolname from pg_roles where rolname like 'v-%' order by 1").expect("users")
    }
}
