use std::{
    fs,
    io::{self, Write as _},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use drawbridge_runtime::private_files;
use rustix::process::geteuid;
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::{
    DependencyError, path_folders,
    server::{Server, prepare},
};

const PROGRAM: &str = "postgres";
/// The unprivileged user and group of Linux distributions, by numeric id.
const UNPRIVILEGED_ID: u32 = 65534;
/// The one database.
const DATABASE: &str = "postgres";
/// The superuser.
const OWNER: &str = "owner";
/// Debian's PostgreSQL folder, with one subfolder per version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    /// The process.
    pub server: Server,
    /// Its port on loopback.
    pub port: u16,
    /// The folder of its binaries.
    pub binaries: PathBuf,
    password: SecretString,
}

impl Postgres {
    /// Creates a database in a new folder, starts a server and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn start(binaries: &Path) -> Result<Self, DependencyError> {
        let (folder, reserved) = prepare(PROGRAM)?;
        let port = reserved.number;
        let password = Uuid::new_v4().to_string();
        let failed = |source| DependencyError::Prepare { program: PROGRAM, source };
        // A subfolder: the server's user must not be able to write the run folder's pid file.
        let home = folder.path().join("postgres");
        let password_file = home.join("password");
        let write = || {
            private_files::create_folder(&home)?;
            private_files::create(&password_file)?.write_all(password.as_bytes())?;
            chown_to_unprivileged(folder.path(), &home)
        };
        write().map_err(failed)?;
        let data = home.join("data");
        let mut initdb = as_unprivileged(&binaries.join("initdb"));
        initdb.args([
            "--auth=scram-sha-256",
            "--username",
            OWNER,
            "--no-sync",
            "--encoding=UTF8",
            "--pgdata",
        ]);
        initdb.arg(&data).arg("--pwfile").arg(&password_file);
        let output = tokio::task::spawn_blocking(move || initdb.output())
            .await
            .map_err(|error| failed(error.into()))?;
        let output = output.map_err(|source| DependencyError::Run { program: "initdb", source })?;
        succeeded("initdb", &output)?;

        let mut command = as_unprivileged(&binaries.join(PROGRAM));
        command.arg("-D").arg(&data).args([
            "-p",
            &port.to_string(),
            "-h",
            &Ipv4Addr::LOCALHOST.to_string(),
        ]);
        command.args(["-F", "-c", "unix_socket_directories="]);
        let server = Server::run(PROGRAM, command, folder, vec![reserved], "".into())?;
        let mut postgres =
            Self { server, port, binaries: binaries.to_owned(), password: password.into() };
        let binaries = postgres.binaries.clone();
        postgres.server.wait_until(|| is_ready(&binaries, port)).await?;
        Ok(postgres)
    }

    /// Restarts it on the same port after it has exited, with its data.
    ///
    /// # Errors
    /// When it cannot be run or does not answer. The processes of a killed server may exit some
    /// moments later, and no other can run until then.
    pub async fn restart(&mut self) -> Result<(), DependencyError> {
        self.server.restart()?;
        let (binaries, port) = (self.binaries.clone(), self.port);
        self.server.wait_until(|| is_ready(&binaries, port)).await
    }

    /// Runs a psql script as the superuser, whose name the script reads from the variable `vault`.
    ///
    /// # Errors
    /// When the database rejects a statement.
    pub async fn run_script(&self, script: &'static str) -> Result<(), DependencyError> {
        const PSQL: &str = "psql";
        let mut psql = Command::new(self.binaries.join(PSQL));
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
        succeeded(PSQL, &ran.map_err(|source| DependencyError::Run { program: PSQL, source })?)
    }

    /// The superuser's name and password.
    #[must_use]
    pub fn owner(&self) -> (&str, &SecretString) {
        (OWNER, &self.password)
    }

    /// Its URL, without a user.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{}:{}/{DATABASE}?sslmode=disable", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Its URL for Vault, which fills in `{{username}}` and `{{password}}`.
    #[must_use]
    pub fn connection_url(&self) -> String {
        format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@{}:{}/{DATABASE}?sslmode=disable",
            Ipv4Addr::LOCALHOST,
            self.port
        )
    }
}

/// The binaries of the newest PostgreSQL in Debian's folder, or else of the one on `PATH`.
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

async fn is_ready(binaries: &Path, port: u16) -> bool {
    let mut pg_isready = Command::new(binaries.join("pg_isready"));
    pg_isready.args([
        "--quiet",
        "--host",
        &Ipv4Addr::LOCALHOST.to_string(),
        "--port",
        &port.to_string(),
    ]);
    let status = tokio::task::spawn_blocking(move || pg_isready.status()).await;
    status.is_ok_and(|status| status.is_ok_and(|status| status.success()))
}

/// PostgreSQL refuses to run as root; root runs it as the unprivileged user instead.
fn as_unprivileged(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={UNPRIVILEGED_ID}")).arg(format!("--regid={UNPRIVILEGED_ID}"));
    command.args(["--clear-groups", "--pdeathsig=INT"]).arg(program);
    command
}

/// Makes the server's user the owner of a folder, and lets that user traverse its parent.
fn chown_to_unprivileged(parent: &Path, folder: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    fs::set_permissions(parent, fs::Permissions::from_mode(0o711))?;
    let owner = format!("{UNPRIVILEGED_ID}:{UNPRIVILEGED_ID}");
    let chown = Command::new("chown").args(["-R", &owner]).arg(folder).status()?;
    if chown.success() {
        Ok(())
    } else {
        Err(io::Error::other("chown to the unprivileged user failed"))
    }
}

fn succeeded(program: &'static str, output: &Output) -> Result<(), DependencyError> {
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DependencyError::NotServing { program, output })
}
