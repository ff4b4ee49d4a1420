//! `drawbridge up`: what it says is so, and what it starts ends with it.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Child,
    sync::atomic::{AtomicU16, Ordering},
};

use crate::{Up, drawbridge, text};

mod client;
mod dependencies;
mod left_over;
mod meshes;
mod own_services;
mod processes;
mod restart;

/// How far above the first port of a mesh its others are.
const PORTS: [u16; 12] = [0, 1, 10, 11, 80, 81, 110, 111, 120, 121, 130, 131];

/// The first port of a mesh whose ports are all free. Other tests choose others.
fn first_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FROM: u16 = 12_000;
    const STEP: u16 = 140;
    // Other test processes begin elsewhere.
    let begin = u16::try_from(std::process::id() % 100).expect("a number");
    for _ in 0..100 {
        let step = (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 100;
        let first = FROM + step * STEP;
        if PORTS.iter().all(|above| TcpListener::bind((Ipv4Addr::LOCALHOST, first + above)).is_ok())
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

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that the tests need, in the folder that `tests/setup.sh` installs into.
fn tool(path: &str) -> PathBuf {
    let tools = std::env::var_os("DRAWBRIDGE_TOOLS");
    let tools =
        tools.map_or_else(|| PathBuf::from(crate::REPOSITORY).join(".tools"), PathBuf::from);
    let path = tools.join(path);
    assert!(path.exists(), "{} is missing; `tests/setup.sh test` installs it", path.display());
    path
}
