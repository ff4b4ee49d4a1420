use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use secrecy::{ExposeSecret as _, SecretString};

use super::{BackingError, RunFolder};

/// Within this time a server answers, on a machine that is busy too.
const START_DEADLINE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long a server may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How much of what a server has written an error repeats, in bytes.
const SAYS_BYTES: usize = 400;
const LOG: &str = "server.log";

/// A program that runs beside the mesh and ends with it, with a folder of its own.
#[derive(Debug)]
pub struct Server {
    program: &'static str,
    command: Command,
    input: SecretString,
    child: Child,
    folder: RunFolder,
}

impl Server {
    /// Runs a program, which gets `input` and then an end.
    pub(super) fn run(
        program: &'static str,
        mut command: Command,
        folder: RunFolder,
        input: SecretString,
    ) -> Result<Self, BackingError> {
        // A Ctrl-C that is meant for the mesh does not reach it: it is needed until the mesh has stopped.
        command.process_group(0);
        let child = spawn(&mut command, &folder, &input);
        let child = child.map_err(|source| BackingError::Run { program, source })?;
        Ok(Self { program, command, input, child, folder })
    }

    /// Ends it without a warning, as a machine that fails does.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        // INVARIANT: it is a child, and nobody else waits for it.
        let _ = self.child.wait();
        self.folder.clear_server();
    }

    /// Runs it again after it has ended, with the folder as it is.
    pub(super) fn run_again(&mut self) -> Result<(), BackingError> {
        let child = spawn(&mut self.command, &self.folder, &self.input);
        self.child = child.map_err(|source| BackingError::Run { program: self.program, source })?;
        Ok(())
    }

    /// Waits until it answers.
    pub(super) async fn until<F: Future<Output = bool> + Send>(
        &mut self,
        answers: impl Fn() -> F + Send,
    ) -> Result<(), BackingError> {
        let started = Instant::now();
        while !answers().await {
            let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            if ended || started.elapsed() > START_DEADLINE {
                return Err(BackingError::Silent { program: self.program, says: self.says() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn says(&self) -> String {
        let said = fs::read(self.folder.path().join(LOG)).unwrap_or_default();
        let end = &said[said.len().saturating_sub(SAYS_BYTES)..];
        String::from_utf8_lossy(end).trim().to_owned()
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // One that has ended already hears nothing.
        let _ = id.map(|id| kill_process(id, signal));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // For PostgreSQL, Redis and Vault alike: let nobody wait, and stop.
        self.signal(Signal::INT);
        let asked = Instant::now();
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if asked.elapsed() > STOP_DEADLINE {
                self.signal(Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn spawn(command: &mut Command, folder: &RunFolder, input: &SecretString) -> io::Result<Child> {
    let log = File::create(folder.path().join(LOG))?;
    // By its place a server that is left over is known again.
    command.current_dir(folder.path());
    let mut child = command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).spawn()?;
    folder.set_server(child.id())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.expose_secret().as_bytes())?;
    }
    Ok(child)
}

/// A folder for a server, and a port that is free now.
pub(super) fn prepare(program: &'static str) -> Result<(RunFolder, u16), BackingError> {
    let prepared = || io::Result::Ok((RunFolder::new()?, free_port()?));
    prepared().map_err(|source| BackingError::Prepare { program, source })
}

/// A port that is free now.
pub(super) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
