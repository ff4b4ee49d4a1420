use std::os::unix::net::UnixListener;

use proptest::prelude::*;

use super::*;
use crate::{
    read::read as read_file,
    sample::{FILE_BYTES_MAX, OUTSIDE, Sample, no_cancellation},
};

fn read(sample: &Sample, path: &str) -> Result<String, CodeError> {
    let contents = read_file(&sample.tree(), &TreePath::parse_file(path)?, &no_cancellation())?;
    Ok(String::from_utf8(contents).unwrap())
}

fn sample_with_escapes() -> Sample {
    let sample = Sample::of(&[("a.txt", "a\n"), ("src/b.txt", "b\n"), (".git/config", "token\n")]);
    sample.link("out.txt", "../outside/secret.txt");
    sample.link("out", "../outside");
    sample.link("absolute.txt", sample.path().join("outside/secret.txt"));
    sample.link("absolute", sample.path());
    sample.link("src/up", "..");
    sample.link("git", ".git");
    sample
}

#[test]
fn a_file_is_read_by_its_path() {
    let sample = sample_with_escapes();
    for (path, contents) in [("a.txt", "a\n"), ("src/b.txt", "b\n")] {
        assert_eq!(read(&sample, path).unwrap(), contents, "{path}");
    }
}

#[test]
fn a_noncanonical_path_is_rejected() {
    for path in ["./src/b.txt", "src//b.txt", "src/./b.txt", "src/b.txt/", "src/b.txt/."] {
        let error = TreePath::parse(path).unwrap_err();
        assert!(error.to_string().contains("must be written as `src/b.txt`"), "{path}: {error}");
    }
    for path in [".", "./", "./."] {
        assert!(TreePath::parse(path).is_err(), "{path}");
    }
}

#[test]
fn a_path_through_a_link_is_rejected_with_the_canonical_path() {
    let sample = Sample::of(&[("src/a.txt", "a\n")]);
    sample.link("file", "src/a.txt");
    sample.link("folder", "src");
    sample.link("src/back", "../src/a.txt");
    for path in ["file", "folder/a.txt", "src/back"] {
        let problem = "`path`: leads through a symbolic link; it must be written as `src/a.txt`";
        assert_eq!(read(&sample, path).unwrap_err().to_string(), problem, "{path}");
    }
}

#[test]
fn a_file_that_may_hold_keys_is_rejected_under_every_name() {
    let sample =
        Sample::of(&[("deploy/server.pem", "key\n"), (".env.Local", "key\n"), ("keys.key/a", "")]);
    sample.link("harmless.txt", "deploy/server.pem");
    sample.link("deploy/env", "../.env.Local");
    sample.link("folder", "keys.key");
    for path in [
        "deploy/server.pem",
        ".env.Local",
        "harmless.txt",
        "deploy/env",
        "folder/a",
        "missing.pem",
        ".ENV",
    ] {
        let error = read(&sample, path).unwrap_err();
        assert!(matches!(error, CodeError::Secret), "{path}: {error:?}");
    }
    let error = sample.tree().folder(&TreePath::parse("keys.key").unwrap()).unwrap_err();
    assert!(matches!(error, CodeError::Secret), "{error:?}");
}

#[test]
fn a_path_outside_the_tree_is_an_invalid_argument() {
    let sample = sample_with_escapes();
    for path in [
        "",
        ".",
        "./",
        "..",
        "../outside/secret.txt",
        "src/../a.txt",
        "/etc/passwd",
        "/",
        "a.txt\0",
    ] {
        let error = read(&sample, path).unwrap_err();
        assert!(matches!(error, CodeError::Argument { field: "path", .. }), "{path:?}: {error:?}");
    }
}

#[test]
fn a_link_out_of_the_tree_is_rejected() {
    let sample = sample_with_escapes();
    for path in ["out.txt", "out/secret.txt", "absolute.txt", "absolute/outside/secret.txt", "out"]
    {
        let error = read(&sample, path).unwrap_err();
        assert!(matches!(error, CodeError::OutOfTree), "{path}: {error:?}");
    }
}

#[test]
fn a_missing_file_is_not_found() {
    let sample = sample_with_escapes();
    sample.link("dangling", "nowhere");
    let long = "x".repeat(300);
    for path in ["missing", "src/missing", "a.txt/b", "dangling", &long] {
        let error = read(&sample, path).unwrap_err();
        assert!(matches!(error, CodeError::NotFound), "{path}: {error:?}");
    }
}

#[test]
fn the_git_folder_is_not_found_even_through_a_link() {
    let sample = sample_with_escapes();
    for path in [".git/config", "git/config", "src/up/.git/config"] {
        let error = read(&sample, path).unwrap_err();
        assert!(matches!(error, CodeError::NotFound), "{path}: {error:?}");
    }
}

#[test]
fn a_special_file_is_rejected_without_blocking() {
    let sample = Sample::of(&[("src/a.txt", "a\n")]);
    sample.fifo("fifo");
    let _socket = UnixListener::bind(sample.path().join("tree/socket")).unwrap();
    for path in ["fifo", "socket", "src"] {
        let error = read(&sample, path).unwrap_err();
        assert!(matches!(error, CodeError::NotAFile), "{path}: {error:?}");
    }
}

#[test]
fn a_device_is_rejected() {
    let tree = Tree::open(Path::new("/dev"), FILE_BYTES_MAX, Secrets::new(&[]).unwrap()).unwrap();
    let path = TreePath::parse_file("zero").unwrap();
    let error = read_file(&tree, &path, &no_cancellation()).unwrap_err();
    assert!(matches!(error, CodeError::NotAFile), "{error:?}");
}

#[test]
fn a_binary_or_large_file_is_rejected() {
    let limit = usize::try_from(FILE_BYTES_MAX).unwrap();
    let sample = Sample::of(&[("just", &"x".repeat(limit)), ("large", &"x".repeat(limit + 1))]);
    sample.write("binary", b"text\0text");
    assert_eq!(read(&sample, "just").unwrap().len(), limit);
    assert!(matches!(read(&sample, "binary").unwrap_err(), CodeError::Binary));
    let error = read(&sample, "large").unwrap_err();
    assert_eq!(error.to_string(), "the file is larger than the limit of 100000 bytes");
}

#[test]
fn a_root_that_is_not_a_folder_cannot_be_opened() {
    let sample = Sample::of(&[("a.txt", "a\n")]);
    for root in ["missing", "tree/a.txt"] {
        let secrets = Secrets::new(&[]).unwrap();
        assert!(Tree::open(&sample.path().join(root), FILE_BYTES_MAX, secrets).is_err(), "{root}");
    }
}

fn path_text() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        prop::sample::select(vec![
            "out",
            "out.txt",
            "absolute",
            "absolute.txt",
            "src",
            "up",
            "tree"
        ])
        .prop_map(str::to_owned),
        prop::sample::select(vec![
            "outside",
            "secret.txt",
            "a.txt",
            "b.txt",
            "git",
            ".git",
            "config"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    prop_oneof![
        any::<String>(),
        prop::collection::vec(name, 1..7).prop_map(|names| names.join("/"))
    ]
}

#[test]
fn no_path_reads_a_file_outside_the_tree() {
    let sample = sample_with_escapes();
    proptest!(|(path in path_text())| {
        if let Ok(contents) = read(&sample, &path) {
            let is_inside = ["a\n", "b\n"].contains(&contents.as_str());
            prop_assert!(is_inside, "{path:?} reads {contents:?}");
        }
    });
    assert_eq!(std::fs::read_to_string(sample.path().join("outside/secret.txt")).unwrap(), OUTSIDE);
}
