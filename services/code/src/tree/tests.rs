use std::os::unix::net::UnixListener;

use proptest::prelude::*;

use super::*;
use crate::sample::{FILE_BYTES_MAX, OUTSIDE, Sample, waiting};

fn read(sample: &Sample, path: &str) -> Result<String, CodeError> {
    let contents = sample.tree().read(&TreePath::parse_file(path)?, &waiting())?;
    Ok(String::from_utf8(contents).unwrap())
}

fn sample_with_ways_out() -> Sample {
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
    let sample = sample_with_ways_out();
    for (path, contents) in [("a.txt", "a\n"), ("src/b.txt", "b\n")] {
        assert_eq!(read(&sample, path).unwrap(), contents, "{path}");
    }
}

#[test]
fn another_spelling_of_a_path_is_refused_so_that_no_policy_is_evaded() {
    for path in ["./src/b.txt", "src//b.txt", "src/./b.txt", "src/b.txt/", "src/b.txt/."] {
        let refused = TreePath::parse(path).unwrap_err();
        assert!(
            refused.to_string().contains("must be written as `src/b.txt`"),
            "{path}: {refused}"
        );
    }
    for path in [".", "./", "./."] {
        assert!(TreePath::parse(path).is_err(), "{path}");
    }
}

#[test]
fn a_path_through_a_link_is_refused_with_the_own_name_of_the_file() {
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
fn a_file_that_may_hold_keys_is_refused_by_each_of_its_names() {
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
        let refused = read(&sample, path).unwrap_err();
        assert!(matches!(refused, CodeError::Secret), "{path}: {refused:?}");
    }
    let refused = sample.tree().folder(&TreePath::parse("keys.key").unwrap()).unwrap_err();
    assert!(matches!(refused, CodeError::Secret), "{refused:?}");
}

#[test]
fn a_path_that_is_not_within_the_tree_is_a_wrong_argument() {
    let sample = sample_with_ways_out();
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
fn a_link_out_of_the_tree_is_refused() {
    let sample = sample_with_ways_out();
    for path in ["out.txt", "out/secret.txt", "absolute.txt", "absolute/outside/secret.txt", "out"]
    {
        let error = read(&sample, path).unwrap_err();
        assert!(matches!(error, CodeError::OutOfTree), "{path}: {error:?}");
    }
}

#[test]
fn what_is_missing_is_not_found() {
    let sample = sample_with_ways_out();
    sample.link("dangling", "nowhere");
    let long = "x".repeat(300);
    for path in ["missing", "src/missing", "a.txt/b", "dangling", &long] {
        let error = read(&sample, path).unwrap_err();
        assert!(matches!(error, CodeError::NotFound), "{path}: {error:?}");
    }
}

#[test]
fn gits_own_folder_is_not_found_not_even_through_a_link() {
    let sample = sample_with_ways_out();
    for path in [".git/config", "git/config", "src/up/.git/config"] {
        let error = read(&sample, path).unwrap_err();
        assert!(matches!(error, CodeError::NotFound), "{path}: {error:?}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_and_never_blocks() {
    let sample = Sample::of(&[("src/a.txt", "a\n")]);
    sample.fifo("fifo");
    let _socket = UnixListener::bind(sample.path().join("tree/socket")).unwrap();
    for path in ["fifo", "socket", "src"] {
        let error = read(&sample, path).unwrap_err();
        assert!(matches!(error, CodeError::NotAFile), "{path}: {error:?}");
    }
}

#[test]
fn a_device_is_refused() {
    let tree = Tree::open(Path::new("/dev"), FILE_BYTES_MAX, Secrets::new(&[]).unwrap()).unwrap();
    let error = tree.read(&TreePath::parse_file("zero").unwrap(), &waiting()).unwrap_err();
    assert!(matches!(error, CodeError::NotAFile), "{error:?}");
}

#[test]
fn a_binary_file_and_a_large_file_are_refused() {
    let limit = usize::try_from(FILE_BYTES_MAX).unwrap();
    let sample = Sample::of(&[("just", &"x".repeat(limit)), ("large", &"x".repeat(limit + 1))]);
    sample.write("binary", b"text\0text");
    assert_eq!(read(&sample, "just").unwrap().len(), limit);
    assert!(matches!(read(&sample, "binary").unwrap_err(), CodeError::Binary));
    let error = read(&sample, "large").unwrap_err();
    assert_eq!(error.to_string(), "the file is larger than the limit of 100000 bytes");
}

#[test]
fn a_root_that_is_no_folder_cannot_be_opened() {
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
fn no_path_reads_what_lies_outside() {
    let sample = sample_with_ways_out();
    proptest!(|(path in path_text())| {
        if let Ok(contents) = read(&sample, &path) {
            prop_assert!(["a\n", "b\n"].contains(&contents.as_str()), "{path:?} reads {contents:?}");
        }
    });
    assert_eq!(std::fs::read_to_string(sample.path().join("outside/secret.txt")).unwrap(), OUTSIDE);
}
