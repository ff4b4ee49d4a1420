use serde::Deserialize;

use crate::{Bounded, ConfigText, Mistakes, Spanned};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it is only parsed")]
struct File {
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it is only parsed")]
struct Service {
    name: Spanned<String>,
    urls: Vec<std::net::SocketAddr>,
    mode: Option<Mode>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Warn,
    Enforce,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    replicas: Option<Bounded<1, 100>>,
    names: Vec<String>,
}

fn errors(text: &ConfigText) -> String {
    text.parse::<File>().unwrap_err().to_string()
}

#[test]
fn all_mistakes_in_the_structure_are_reported_at_once() {
    let text = ConfigText::new(
        "edge.toml",
        "[[services]]\nname = 5\nurls = [\"1.1.1.1:1\", \"local\", \"here\"]\n\
         [[services]]\nname = \"a\"\nurl = []\nmode = \"off\"\n\
         [[services]]\nmode = \"warm\"\nurls = []\n\
         [limits]\nreplicas = 101\nnames = [\"a\", 1]\n[limit]\n",
    );
    insta::assert_snapshot!(errors(&text), @r#"
    edge.toml:2:8: expected a string, found integer `5`
      |
    2 | name = 5
      |        ^
    edge.toml:3:22: invalid socket address syntax
      |
    3 | urls = ["1.1.1.1:1", "local", "here"]
      |                      ^^^^^^^
    edge.toml:3:31: invalid socket address syntax
      |
    3 | urls = ["1.1.1.1:1", "local", "here"]
      |                               ^^^^^^
    edge.toml:6:1: unknown field `url`, expected one of `name`, `urls`, `mode`
      |
    6 | url = []
      | ^^^
      = help: did you mean `urls`?
    edge.toml:7:8: unknown variant `off`, expected `warn` or `enforce`
      |
    7 | mode = "off"
      |        ^^^^^
    edge.toml:8:1: missing field `name`
      |
    8 | [[services]]
      | ^^^^^^^^^^^^
    edge.toml:9:8: unknown variant `warm`, expected `warn` or `enforce`
      |
    9 | mode = "warm"
      |        ^^^^^^
      = help: did you mean `warn`?
    edge.toml:12:12: must be from 1 to 100
       |
    12 | replicas = 101
       |            ^^^
    edge.toml:13:15: expected a string, found integer `1`
       |
    13 | names = ["a", 1]
       |               ^
    edge.toml:14:2: unknown field `limit`, expected `services` or `limits`
       |
    14 | [limit]
       |  ^^^^^
       = help: did you mean `limits`?
    "#);
}

#[test]
fn a_table_in_place_of_an_array_of_tables_is_explained() {
    let text = ConfigText::new("edge.toml", "[services]\nname = \"a\"\n[[limits]]\n");
    insta::assert_snapshot!(errors(&text), @"
    edge.toml:1:1: expected an array, found a table
      |
    1 | [services]
      | ^^^^^^^^^^
      = help: write `[[services]]`
    edge.toml:3:1: expected a whole number, found a table
      |
    3 | [[limits]]
      | ^^^^^^^^^^
    ");
}

#[test]
fn syntax_errors_are_reported_at_once_and_with_others_where_the_rest_is_readable() {
    let readable = "[limits]\nreplicas = 5s\nnames = []\nnames = [1]\nname = 1\n";
    insta::assert_snapshot!(errors(&ConfigText::new("edge.toml", readable)), @"
    edge.toml:2:12: string values must be quoted, expected literal string
      |
    2 | replicas = 5s
      |            ^^
    edge.toml:4:1: duplicate key
      |
    4 | names = [1]
      | ^^^^^
    edge.toml:5:1: unknown field `name`, expected `replicas` or `names`
      |
    5 | name = 1
      | ^^^^
      = help: did you mean `names`?
    ");
    let unreadable = "[limits\nreplicas = 5s\n[[services]]\nname = \"a\nurls = [\"a\"\n";
    insta::assert_snapshot!(errors(&ConfigText::new("edge.toml", unreadable)), @r#"
    edge.toml:1:8: unclosed table, expected `]`
      |
    1 | [limits
      |        ^
    edge.toml:4:10: invalid basic string, expected `"`
      |
    4 | name = "a
      |          ^
    edge.toml:5:12: unclosed array, expected `]`
      |
    5 | urls = ["a"
      |            ^
    "#);
}

#[test]
fn an_error_in_a_file_with_secrets_quotes_nothing_of_it() {
    let text = "[[services]]\nname = \"hunter2\"\nurls = \"hunter2\"\nmode = \"hunter2\"\n";
    let text = ConfigText::new("users.toml", text).with_secrets();
    insta::assert_snapshot!(errors(&text), @"
    users.toml:3:8: expected an array
    users.toml:4:8: unknown variant, expected `warn` or `enforce`
    ");
    let text = ConfigText::new("users.toml", "name = \"hunter2\" oops\n").with_secrets();
    insta::assert_snapshot!(errors(&text), @"users.toml:1:18: unexpected key or value, expected newline, `#`");
}

#[test]
fn a_combination_is_reported_only_where_the_rest_of_the_table_is_right() {
    let text = ConfigText::new(
        "edge.toml",
        "[[services]]\nname = \"a\"\nurls = [\"local\"]\n\
         [[services]]\nname = \"b\"\nurls = []\n[limits]\n",
    );
    let mut mistakes = Mistakes::new(&text);
    let file: File = mistakes.parse().unwrap();
    assert!(!mistakes.is_complete("services") && mistakes.is_complete("limits"));
    for service in &file.services {
        assert!(service.urls.is_empty());
        mistakes.push_combined(service.name.span(), "it needs a URL");
    }
    let error = mistakes.finish(Some(())).unwrap_err();
    insta::assert_snapshot!(error, @r#"
    edge.toml:3:9: invalid socket address syntax
      |
    3 | urls = ["local"]
      |         ^^^^^^^
    edge.toml:5:8: it needs a URL
      |
    5 | name = "b"
      |        ^^^
    "#);
}

#[test]
fn a_mistake_within_a_string_points_at_its_place() {
    #[derive(Deserialize)]
    struct Programs {
        b: Spanned<String>,
        c: Spanned<String>,
    }
    let text =
        ConfigText::new("edge.toml", "a = 1\nb = \'\'\'\n.x |\n  foo\n\'\'\'\nc = \"a\\u0062\"\n");
    let mut mistakes = Mistakes::new(&text);
    let programs: Programs = mistakes.parse().unwrap();
    mistakes.push_in(&programs.b, 7..10, "there is no foo");
    mistakes.push_in(&programs.b, 12..12, "it ends");
    mistakes.push_in(&programs.c, 1..2, "no b");
    insta::assert_snapshot!(mistakes.finish(Some(())).unwrap_err(), @r#"
    edge.toml:4:3: there is no foo
      |
    4 |   foo
      |   ^^^
    edge.toml:5:2: it ends
      |
    5 | '''
      |  ^
    edge.toml:6:5: no b
      |
    6 | c = "a\u0062"
      |     ^
    "#);
}
