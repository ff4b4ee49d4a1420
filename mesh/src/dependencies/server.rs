use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpSocket;

use super::{DependencyError, RunFolder};

/// How long a server may take to serve, also on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// How long a server may take to exit.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How much of a server's log an error message quotes, in bytes.
const LOG_TAIL_BYTES_MAX: usize = 400;
const LOG: &str = "server.log";

/// A server process that runs next to the mesh, in its own run folder, and stops with it.
#[derive(Debug)]
pub struct Server {
    program: &'static str,
    command: Command,
    input: SecretString,
    child: Child,
    folder: RunFolder,
    /// Reserved while the server does not run, too: nothing else may answer in its place.
    _ports: Vec<ReservedPort>,
}

impl Server {
    /// Runs a program that listens on `ports`, and writes `input` to its standard input, then
    /// closes it.
    pub(super) fn run(
        program: &'static str,
        mut command: Command,
        folder: RunFolder,
        ports: Vec<ReservedPort>,
        input: SecretString,
    ) -> Result<Self, DependencyError> {
        // In its own group: Ctrl-C must reach only the mesh, which needs the server until it has
        // stopped.
        command.process_group(0);
        let child = spawn(&mut command, &folder, &input);
        let child = child.map_err(|source| DependencyError::Run { program, source })?;
        Ok(Self { program, command, input, child, folder, _ports: ports })
    }

    /// Kills it, as a failing machine would.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        // INVARIANT: it is a child, and nothing else waits for it.
        let _ = self.child.wait();
        self.folder.remove_server_pid();
    }

    /// Restarts it after it has exited, in the same folder.
    pub(super) fn restart(&mut self) -> Result<(), DependencyError> {
        let child = spawn(&mut self.command, &self.folder, &self.input);
        self.child =
            child.map_err(|source| DependencyError::Run { program: self.program, source })?;
        Ok(())
    }

    /// Waits until it serves.
    pub(super) async fn wait_until<F: Future<Output = bool> + Send>(
        &mut self,
        is_serving: impl Fn() -> F + Send,
    ) -> Result<(), DependencyError> {
        let started = Instant::now();
        while !is_serving().await {
            let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            if ended || started.elapsed() > START_DEADLINE {
                return Err(DependencyError::NotServing {
                    program: self.program,
                    output: self.log_tail(),
                });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.folder.path().join(LOG)).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES_MAX)..];
        String::from_utf8_lossy(tail).trim().to_owned()
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Fails if it has exited already.
        let _ = id.map(|id| kill_process(id, signal));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // PostgreSQL, Redis and Vault all treat SIGINT as a fast shutdown.
        self.signal(Signal::INT);
        let signalled = Instant::now();
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if signalled.elapsed() > STOP_DEADLINE {
                self.signal(Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn spawn(command: &mut Command, folder: &RunFolder, input: &SecretString) -> io::Result<Child> {
    let log = File::create(folder.path().join(LOG))?;
    // The working directory identifies a leftover server.
    command.current_dir(folder.path());
    let mut child = command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).spawn()?;
    folder.write_server_pid(child.id())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.expose_secret().as_bytes())?;
    }
    Ok(child)
}

/// A run folder for a server, and a port for it.
pub(super) fn prepare(program: &'static str) -> Result<(RunFolder, ReservedPort), DependencyError> {
    let prepared = || io::Result::Ok((RunFolder::new()?, ReservedPort::new()?));
    prepared().map_err(|source| DependencyError::Prepare { program, source })
}

/// A port on loopback that the system assigns to no other process while this exists.
#[derive(Debug)]
pub struct ReservedPort {
    /// Its number.
    pub number: u16,
    /// Bound, but not listening. Linux lets a server listen on the port of such a socket, if both
    /// set `SO_REUSEADDR`; elsewhere the port is free, but not reserved.
    #[cfg(target_os = "linux")]
    _socket: TcpSocket,
}

impl ReservedPort {
    /// Reserves a free port.
    ///
    /// # Errors
    /// When the system has none.
    pub fn new() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let number = socket.local_addr()?.port();
        Ok(Self {
            number,
            #[cfg(target_os = "linux")]
            _socket: socket,
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_server_can_listen_on_its_reserved_port_again_and_nothing_answers_meanwhile() {
        let port = ReservedPort::new().unwrap();
        let address = (Ipv4Addr::LOCALHOST, port.number);
        for _ in 0..2 {
            let server = TcpListener::bind(address).unwrap();
            drop(TcpStream::connect(address).unwrap());
            drop(server);
            let refused = TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}
