use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

const START_DEADLINE: Duration = Duration::from_secs(30);
/// Who may do anything, by a password that only this test knows.
const OWNER: &str = "owner";

/// A PostgreSQL server of this test's own, in a folder of its own.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    programs: PathBuf,
    password: String,
    /// Where it listens, on loopback.
    pub port: u16,
    _folder: TempDir,
}

impl Postgres {
    /// Starts a server on a free port and waits until it answers.
    pub fn start() -> Self {
        let programs = programs();
        let folder = tempfile::tempdir().expect("a folder");
        let password = uuid::Uuid::new_v4().to_string();
        let password_file = folder.path().join("password");
        fs::write(&password_file, &password).expect("a file");
        give_away(folder.path());
        let data = folder.path().join("data");
        let made = as_nobody(&programs.join("initdb"))
            .args(["--auth=scram-sha-256", "--username", OWNER, "--no-sync", "--encoding=UTF8", "--pgdata"])
            .arg(&data)
            .arg("--pwfile")
            .arg(&password_file)
            .output()
            .expect("initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a port").port();
        let child = as_nobody(&programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-F", "-c", "unix_socket_directories="])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres");
        let postgres = Self { child, programs, password, port, _folder: folder };
        let started = Instant::now();
        while postgres.ask("select 1").is_err() {
            assert!(started.elapsed() < START_DEADLINE, "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        postgres
    }

    /// Where it is, for Vault: `{{username}}` and `{{password}}` stand for those that Vault is given.
    pub fn connection_url(&self) -> String {
        format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }

    /// The name and the password of the user who may do anything.
    pub fn owner(&self) -> (&str, &str) {
        (OWNER, &self.password)
    }

    /// What the server answers its owner, a line for each row.
    pub fn ask(&self, sql: &str) -> Result<Vec<String>, String> {
        self.ask_as(OWNER, &self.password, sql)
    }

    /// What the server answers this user.
    pub fn ask_as(&self, user: &str, password: &str, sql: &str) -> Result<Vec<String>, String> {
        let answer = Command::new(self.programs.join("psql"))
            .args(["--host=127.0.0.1", "--dbname=postgres", "--no-psqlrc", "--no-align", "--tuples-only"])
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

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT disconnects everybody and stops; the server's own children end with it.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// The folder of the newest PostgreSQL: Debian keeps its programs off PATH.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).filter(|path| version(path).is_some());
    let newest = newest.max_by_key(|path| version(path)).map(|path| path.join("bin"));
    let on_path = env::var_os("PATH").unwrap_or_default();
    let folders = newest.into_iter().chain(env::split_paths(&on_path));
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres", "psql"].iter().all(|program| folder.join(program).is_file())
    };
    folders.into_iter().find(complete).unwrap_or_else(|| {
        panic!("PostgreSQL is missing; `make test` or `tests/setup.sh test` installs it (Debian: postgresql)")
    })
}

/// PostgreSQL refuses to be run by root, who lends it the user `nobody`.
fn as_nobody(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=INT"]).arg(program);
    command
}

fn give_away(folder: &Path) {
    if is_root() {
        let given = Command::new("chown").args(["-R", "nobody:nogroup"]).arg(folder).status();
        assert!(given.is_ok_and(|status| status.success()), "chown");
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    id.stdout.trim_ascii() == b"0"
}
