use std::process::Command;

use drawbridge_mesh::dependencies::{self, Binaries};
use secrecy::ExposeSecret as _;

/// A PostgreSQL server for one test, in its own folder.
#[derive(Debug)]
pub struct Postgres {
    server: dependencies::Postgres,
    /// Its port on loopback.
    pub port: u16,
}

impl Postgres {
    /// Starts a server on a free port and waits until it responds.
    pub async fn start() -> Self {
        let binaries = Binaries::find().postgres.expect(
            "PostgreSQL, which `make test` or `tests/setup.sh test` installs (Debian: postgresql)",
        );
        let server = dependencies::Postgres::start(&binaries).await;
        let server = server.unwrap_or_else(|error| panic!("{error}: {error:?}"));
        Self { port: server.port, server }
    }

    /// Its URL for Vault, with Vault's placeholders `{{username}}` and `{{password}}`.
    pub fn connection_url(&self) -> String {
        self.server.connection_url()
    }

    /// The name and password of the superuser.
    pub fn owner(&self) -> (&str, &str) {
        let (name, password) = self.server.owner();
        (name, password.expose_secret())
    }

    /// Creates the schemas of the tool services.
    pub async fn migrate(&self) {
        dependencies::migrate(&self.server).await.unwrap_or_else(|error| panic!("{error:?}"));
    }

    /// Its URL, without a user.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Runs a statement as the superuser. Returns one string for each row.
    pub fn query(&self, sql: &str) -> Result<Vec<String>, String> {
        let (owner, password) = self.owner();
        self.query_as(owner, password, sql)
    }

    /// Runs a statement as this user. Returns one string for each row.
    pub fn query_as(&self, user: &str, password: &str, sql: &str) -> Result<Vec<String>, String> {
        let output = Command::new(self.server.binaries.join("psql"))
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
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// The users that Vault created and has not yet removed.
    pub fn leased_users(&self) -> Vec<String> {
        self.query("select rolname from pg_roles where rolname like 'v-%' order by 1")
            .expect("users")
    }
}
