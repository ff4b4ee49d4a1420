use std::{
    fs,
    io::{self, Write as _},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use drawbridge_sdk::own;
use rustix::process::geteuid;
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::{
    BackingError, path_folders,
    server::{Server, prepare},
};

const PROGRAM: &str = "postgres";
/// The one database.
const DATABASE: &str = "postgres";
/// Who may do anything.
const OWNER: &str = "owner";
/// Where Debian keeps PostgreSQL, a folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A PostgreSQL.
#[derive(Debug)]
pub struct Postgres {
    /// The process.
    pub server: Server,
    /// Where it listens, on loopback.
    pub port: u16,
    /// Where its programs are.
    pub programs: PathBuf,
    password: SecretString,
}

impl Postgres {
    /// Makes a database in a new folder, starts a server and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn start(programs: &Path) -> Result<Self, BackingError> {
        let (folder, port) = prepare(PROGRAM)?;
        let password = Uuid::new_v4().to_string();
        let failed = |source| BackingError::Prepare { program: PROGRAM, source };
        // Of its own: whoever runs the server must not say which process ends with the folder.
        let home = folder.path().join("postgres");
        let password_file = home.join("password");
        let write = || {
            own::create_folder(&home)?;
            own::create(&password_file)?.write_all(password.as_bytes())?;
            give_away(folder.path(), &home)
        };
        write().map_err(failed)?;
        let data = home.join("data");
        let mut making = as_nobody(&programs.join("initdb"));
        making.args([
            "--auth=scram-sha-256",
            "--username",
            OWNER,
            "--no-sync",
            "--encoding=UTF8",
            "--pgdata",
        ]);
        making.arg(&data).arg("--pwfile").arg(&password_file);
        let made = tokio::task::spawn_blocking(move || making.output())
            .await
            .map_err(|error| failed(error.into()))?;
        let made = made.map_err(|source| BackingError::Run { program: "initdb", source })?;
        succeeded("initdb", &made)?;

        let mut command = as_nobody(&programs.join(PROGRAM));
        command.arg("-D").arg(&data).args([
            "-p",
            &port.to_string(),
            "-h",
            &Ipv4Addr::LOCALHOST.to_string(),
        ]);
        command.args(["-F", "-c", "unix_socket_directories="]);
        let server = Server::run(PROGRAM, command, folder, "".into())?;
        let mut postgres =
            Self { server, port, programs: programs.to_owned(), password: password.into() };
        let programs = postgres.programs.clone();
        postgres.server.until(|| is_ready(&programs, port)).await?;
        Ok(postgres)
    }

    /// Runs a script of psql's as the user who may do anything, whose name it finds in the variable `vault`.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn run_script(&self, script: &'static str) -> Result<(), BackingError> {
        const PSQL: &str = "psql";
        let mut psql = Command::new(self.programs.join(PSQL));
        psql.args(["--host", &Ipv4Addr::LOCALHOST.to_string(), "--port", &self.port.to_string()]);
        psql.args([
            "--dbname",
            DATABASE,
            "--username",
            OWNER,
            "--no-password",
            "--no-psqlrc",
            "--quiet",
        ]);
        psql.args([
            "--single-transaction",
            "--set",
            "ON_ERROR_STOP=1",
            "--set",
            &format!("vault={OWNER}"),
        ]);
        psql.args(["--file", "-"]).env("PGPASSWORD", self.password.expose_secret());
        psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let running = tokio::task::spawn_blocking(move || {
            let mut child = psql.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(script.as_bytes())?;
            }
            child.wait_with_output()
        });
        let ran = running.await.unwrap_or_else(|error| Err(error.into()));
        succeeded(PSQL, &ran.map_err(|source| BackingError::Run { program: PSQL, source })?)
    }

    /// The name and the password of the user who may do anything.
    #[must_use]
    pub fn owner(&self) -> (&str, &SecretString) {
        (OWNER, &self.password)
    }

    /// Where it is, without a user.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{}:{}/{DATABASE}?sslmode=disable", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Where it is, for Vault: `{{username}}` and `{{password}}` stand for those that Vault is given.
    #[must_use]
    pub fn connection_url(&self) -> String {
        format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@{}:{}/{DATABASE}?sslmode=disable",
            Ipv4Addr::LOCALHOST,
            self.port
        )
    }
}

/// The folder of the newest PostgreSQL that is on this machine, or the one on `PATH`.
pub(super) fn folder() -> Option<PathBuf> {
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = versions.filter(|path| version(path).is_some()).max_by_key(version);
    let is_complete = |folder: &PathBuf| {
        ["initdb", "pg_isready", "postgres", "psql"]
            .iter()
            .all(|program| folder.join(program).is_file())
    };
    newest.map(|path| path.join("bin")).into_iter().chain(path_folders()).find(is_complete)
}

async fn is_ready(programs: &Path, port: u16) -> bool {
    let mut asking = Command::new(programs.join("pg_isready"));
    asking.args([
        "--quiet",
        "--host",
        &Ipv4Addr::LOCALHOST.to_string(),
        "--port",
        &port.to_string(),
    ]);
    let asked = tokio::task::spawn_blocking(move || asking.status()).await;
    asked.is_ok_and(|status| status.is_ok_and(|status| status.success()))
}

/// PostgreSQL refuses to be run by root, who lends it the user `nobody`.
fn as_nobody(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=INT"])
        .arg(program);
    command
}

/// Gives a folder to the user who runs the server, and lets that user reach it.
fn give_away(parent: &Path, folder: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    fs::set_permissions(parent, fs::Permissions::from_mode(0o711))?;
    let given = Command::new("chown").args(["-R", "nobody:nogroup"]).arg(folder).status()?;
    if given.success() {
        Ok(())
    } else {
        Err(io::Error::other("it cannot be given to the user nobody"))
    }
}

fn succeeded(program: &'static str, output: &Output) -> Result<(), BackingError> {
    if output.status.success() {
        return Ok(());
    }
    let says = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BackingError::Silent { program, says })
}
