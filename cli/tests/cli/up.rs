//! `drawbridge up`: its report is accurate, and the processes it starts stop with it.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Child,
    sync::atomic::{AtomicU16, Ordering},
};

use crate::{Up, drawbridge, text};

pub(crate) mod client;
mod dependencies;
mod leftovers;
mod meshes;
mod own_services;
mod processes;
mod restart;

/// The offsets of a mesh's ports from the first.
const PORTS: [u16; 12] = [0, 1, 10, 11, 80, 81, 110, 111, 120, 121, 130, 131];

/// The first port of a range in which all of a mesh's ports are free. Each test gets another range.
pub(crate) fn first_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FROM: u16 = 12_000;
    const STEP: u16 = 140;
    // Other test processes start at another range.
    let begin = u16::try_from(std::process::id() % 100).expect("a number");
    for _ in 0..100 {
        let step = (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 100;
        let first = FROM + step * STEP;
        if PORTS
            .iter()
            .all(|offset| TcpListener::bind((Ipv4Addr::LOCALHOST, first + offset)).is_ok())
        {
            return first;
        }
    }
    panic!("no ports are free");
}

/// Sends a signal to a process.
fn signal(name: &str, pid: u32) {
    let sent = std::process::Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.expect("kill").success(), "kill {name} {pid}");
}

/// A process that is killed when the test ends.
pub(crate) struct ChildGuard(pub(crate) Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // It may have exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that the tests need, in the folder that `tests/setup.sh` installs into.
pub(crate) fn tool(path: &str) -> PathBuf {
    let tools = std::env::var_os("DRAWBRIDGE_TOOLS");
    let tools =
        tools.map_or_else(|| PathBuf::from(crate::REPOSITORY).join(".tools"), PathBuf::from);
    let path = tools.join(path);
    assert!(path.exists(), "{} is missing; `tests/setup.sh test` installs it", path.display());
    path
}
