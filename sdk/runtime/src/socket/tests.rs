#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
};

use tempfile::TempDir;

use super::*;
use crate::{BindError, GrpcUrl, Listen, error_chain};

fn socket(folder: &TempDir) -> SocketPath {
    format!("unix:{}/x.sock", folder.path().display()).parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// The error when a service cannot listen on the socket.
fn refused(socket: &SocketPath) -> String {
    let refused = Listen::Unix(socket.clone()).accept().map(|(_, address)| address);
    let refused: BindError = refused.unwrap_err();
    let text = error_chain(&refused);
    assert!(text.contains(&format!("cannot listen on {socket}")), "{text}");
    text
}

#[test]
fn a_socket_path_is_parsed_in_grpcs_notation() {
    let path = |text: &str| text.parse::<SocketPath>().map(|socket| socket.0);
    for text in ["unix:/run/x.sock", "unix:///run/x.sock", "UNIX:/run/x.sock"] {
        assert_eq!(path(text).unwrap(), Path::new("/run/x.sock"), "{text}");
        assert!(text.parse::<GrpcUrl>().is_ok() && text.parse::<Listen>().is_ok(), "{text}");
    }
    assert_eq!(path("unix:/run/a%20b").unwrap(), Path::new("/run/a b"));
    for text in [
        "unix:x.sock",
        "unix://host/x",
        "unix:/x?a",
        "unix:/x#a",
        "unix:",
        "unix:/",
        "unix:/a/",
        "unix:/a%00b",
    ] {
        let error = path(text).unwrap_err();
        assert!(error.to_string().contains("unix:/absolute/path"), "{text}: {error}");
        assert!(text.parse::<GrpcUrl>().is_err() && text.parse::<Listen>().is_err(), "{text}");
    }
    assert!(
        serde_json::from_str::<GrpcUrl>(r#""unix:/run/x.sock""#).is_ok(),
        "as in a config file"
    );
    assert!(crate::parse_url("unix:/run/x.sock").is_err(), "HTTP is not served over it");
}

#[test]
fn a_path_that_is_too_long_is_rejected_with_its_length() {
    let text = |bytes: usize| format!("unix:/{}", "x".repeat(bytes - 1));
    assert!(text(107).parse::<Listen>().is_ok());
    for error in [
        text(108).parse::<Listen>().unwrap_err().to_string(),
        text(108).parse::<GrpcUrl>().unwrap_err().to_string(),
    ] {
        assert!(error.contains("has 108 bytes; at most 107"), "{error}");
    }
}

#[test]
fn only_peers_of_the_same_user_and_root_are_accepted() {
    assert!(check_user(1000, 1000).is_ok() && check_user(0, 1000).is_ok());
    for (peer, own) in [(1001, 1000), (1000, 0)] {
        let error = check_user(peer, own).unwrap_err();
        assert!(error.to_string().contains(&format!("belongs to user {peer}")), "{error}");
    }
}

#[tokio::test]
async fn the_socket_file_is_private_and_is_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let socket = socket(&folder);
    let (accepted, address) = Listen::Unix(socket.clone()).accept().unwrap();
    assert_eq!(address.to_string(), socket.to_string());
    assert!(fs::symlink_metadata(socket.path()).unwrap().file_type().is_socket());
    assert_eq!(mode(socket.path()), 0o600);
    drop(accepted);
    assert!(!socket.path().exists());

    let (accepted, _) = Listen::Unix(socket.clone()).accept().unwrap();
    fs::remove_file(socket.path()).unwrap();
    fs::write(socket.path(), "another's").unwrap();
    drop(accepted);
    assert!(socket.path().exists(), "the new file is another's");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let socket = socket(&folder);
    drop(std::os::unix::net::UnixListener::bind(socket.path()).unwrap());
    assert!(socket.path().exists(), "a killed process leaves its socket behind");
    let _accepted = Listen::Unix(socket.clone()).accept().unwrap();
    let text = refused(&socket);
    assert!(text.contains("is in use: another process listens there"), "{text}");
    assert!(connect(&socket).await.is_ok(), "and still does");
}

#[tokio::test]
async fn one_of_several_services_that_replace_a_stale_socket_listens() {
    let folder = tempfile::tempdir().unwrap();
    let socket = socket(&folder);
    for _ in 0..50 {
        drop(std::os::unix::net::UnixListener::bind(socket.path()).unwrap());
        let starts = [(); 4].map(|()| {
            let socket = socket.clone();
            tokio::task::spawn_blocking(move || Listen::Unix(socket).accept())
        });
        let started = futures::future::join_all(starts).await;
        let listening: Vec<_> =
            started.into_iter().filter_map(|start| start.unwrap().ok()).collect();
        assert_eq!(listening.len(), 1);
        assert!(connect(&socket).await.is_ok(), "its file is still there");
    }
}

#[tokio::test]
async fn a_file_that_is_not_a_socket_is_never_removed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = socket(&folder);
    fs::write(socket.path(), "precious").unwrap();
    let text = refused(&socket);
    assert!(text.contains("exists and is not a socket"), "{text}");
    assert_eq!(fs::read_to_string(socket.path()).unwrap(), "precious");
    fs::remove_file(socket.path()).unwrap();
    std::os::unix::fs::symlink("/nowhere", socket.path()).unwrap();
    assert!(refused(&socket).contains("exists and is not a socket"));
}

#[tokio::test]
async fn a_folder_that_others_can_write_to_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let socket = socket(&folder);
    for loose in [0o777, 0o770] {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(loose)).unwrap();
        let text = refused(&socket);
        assert!(
            text.contains(&format!(
                "can be written by others (mode {loose:o}); fix it with chmod go-w"
            )),
            "{text}"
        );
    }
    assert!(!socket.path().exists());
}

#[test]
fn http_is_not_served_over_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let text = error_chain(&Listen::Unix(socket(&folder)).listener().unwrap_err());
    assert!(text.contains("HTTP is served only over TCP"), "{text}");
}
