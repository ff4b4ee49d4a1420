//! What passed a check and yet never matched, and what was refused without a word of help.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::Folder;
use crate::REPOSITORY;

/// A `forbid` of somebody who is nobody is void, and said to be right.
#[test]
fn a_principal_without_an_issuer_or_of_one_that_is_not_accepted_is_an_error() {
    let folder = Folder::new();
    folder.write(
        "who.cedar",
        "@id(\"bob\")\nforbid (principal == User::\"bob\", action == Action::\"code_search\", resource);\n",
    );
    let said = folder.says(1, &["check"]);
    let wanted = "error: ./who.cedar:2:22: User::\"bob\" names no issuer, so it is nobody\n  |\n2 | forbid (principal == \
                  User::\"bob\", ";
    assert!(said.contains(wanted), "{said}");
    assert!(said.contains("help: the id of a User is User::\"<issuer>#<subject>\""), "{said}");

    folder.edit("who.cedar", "bob\",", "http://127.0.0.1:7100/#bob\",");
    folder.says(0, &["check"]);
    folder.write(
        "issuers.toml",
        "[[issuers]]\nissuer = \"http://127.0.0.1:7100\"\naudiences = [\"x\"]\n",
    );
    let said = folder.says(1, &["check", "--issuers", "issuers.toml"]);
    assert!(
        said.contains("./who.cedar:2:29: User::\"http://127.0.0.1:7100/#bob\" is of the issuer"),
        "{said}"
    );
    assert!(said.contains("help: did you mean \"http://127.0.0.1:7100\"?"), "{said}");
    folder.edit("who.cedar", "7100/#", "7100#");
    folder.says(0, &["check", "--issuers", "issuers.toml"]);
    // Memberships name principals too.
    folder.write(
        "entities/more.json",
        r#"[{ "uid": { "type": "User", "id": "https://other.example#eve" }, "parents": [{ "type": "Group", "id": "support" }] }]"#,
    );
    let said = folder.says(1, &["check", "--issuers", "issuers.toml"]);
    assert!(said.contains("error: ./entities/more.json:1:"), "{said}");
    assert!(said.contains("there are http://127.0.0.1:7100"), "{said}");
}

#[test]
fn a_group_or_role_that_nothing_else_names_is_a_warning() {
    let folder = Folder::new();
    folder.write(
        "lonely.cedar",
        "@id(\"typo\")\nforbid (principal in Group::\"enginering\", action == Action::\"code_search\", resource);\n\
         @id(\"role\")\nforbid (principal in Role::\"zzz\", action == Action::\"code_search\", resource);\n",
    );
    let said = folder.says(0, &["check"]);
    assert!(
        said.contains("warning: ./lonely.cedar:2:22: nothing else names Group::\"enginering\""),
        "{said}"
    );
    assert!(said.contains("help: did you mean Group::\"engineering\"?"), "{said}");
    assert!(
        said.contains("warning: ./lonely.cedar:4:22: nothing else names Role::\"zzz\""),
        "{said}"
    );
    folder.says(1, &["check", "--deny-warnings"]);
}

/// An enum's value that there is not never matches, and was said to be right.
#[test]
fn a_misspelt_enum_value_is_an_error() {
    let folder = Folder::new();
    let policy = |condition: &str| {
        let text = format!(
            "@id(\"open\")\nforbid (principal, action == Action::\"invoices_search\", resource)\nwhen {{ {condition} }};\n"
        );
        folder.write("status.cedar", &text);
    };
    for wrong in [
        "context.input.status == \"INVOICE_STATUS_APROVED\"",
        "\"INVOICE_STATUS_APROVED\" != context.input.status",
        "[\"INVOICE_STATUS_APPROVED\", \"INVOICE_STATUS_APROVED\"].contains(context.input.status)",
        "context.input[\"status\"] like \"INVOICE_STATUS_APROV*\"",
    ] {
        policy(wrong);
        let said = folder.says(1, &["check"]);
        assert!(
            said.contains("error: ./status.cedar:3:") && said.contains("input.status is never"),
            "{said}"
        );
        // Nor is it loaded: `test` needs policies that are right.
        folder.says(2, &["test"]);
    }
    policy("context.input.status == \"INVOICE_STATUS_APROVED\"");
    assert!(folder.says(1, &["check"]).contains("help: did you mean \"INVOICE_STATUS_APPROVED\"?"));
    policy(
        "context.input.status == \"INVOICE_STATUS_APPROVED\" || context.input.status like \"*_OPEN\"",
    );
    folder.says(0, &["check"]);
}

#[test]
fn one_wrong_argument_over_several_actions_is_one_error() {
    let folder = Folder::new();
    folder.write(
        "wide.cedar",
        "@id(\"wide\")\nforbid (principal, action in Action::\"read_tool\", resource)\n\
         when { context.input.nonsense == \"x\" };\n",
    );
    let report = folder.json(1, &["check"]);
    let problems = report["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(problems.len(), 1, "{report:#}");
    assert!(
        problems[0]["help"]
            .as_str()
            .is_some_and(|help| help.contains("name the one that is meant"))
    );
}

#[test]
fn explain_knows_the_development_users_and_tokens_and_names_what_is_misspelt() {
    let folder = Folder::new();
    let explain = |code, rest: &[&str]| folder.says(code, &[&["explain"], rest].concat());
    let said = explain(0, &["code_search", r#"{"query":"x"}"#, "--user", "alice"]);
    assert!(
        said.starts_with(
            "alice, as the development users file says: tenant acme; groups engineering; mfa\ncode_search is allowed"
        ),
        "{said}"
    );
    folder.write(
        "users.toml",
        "[[users]]\nusername = \"zoe\"\npassword = \"x\"\ntenant = \"acme\"\ngroups = [\"engineering\"]\n",
    );
    explain(0, &["code_search", r#"{"query":"x"}"#, "--user", "zoe", "--users", "users.toml"]);
    // What is given counts alone; of whom nothing is known a hint says so.
    explain(1, &["code_search", "--user", "alice", "--group", "support"]);
    let said = explain(1, &["code_search", "--user", "nobody-known"]);
    assert!(said.contains("No group or role of nobody-known is known"), "{said}");

    let claims = json!({ "iss": "https://idp.example", "sub": "a", "tenant": "acme", "groups": ["engineering"] });
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
    folder.write("token", &token);
    let said = explain(0, &["code_search", r#"{"query":"x"}"#, "--token", "token"]);
    assert!(said.starts_with("a of https://idp.example, by the token's claims"), "{said}");
    folder.write("token", "a-secret-that-is-no-token");
    let said = explain(2, &["code_search", "--token", "token"]);
    assert!(said.contains("the token is no signed JWT") && !said.contains("a-secret"), "{said}");

    let said = explain(1, &["code_search", r#"{"qurey":"x","regex":"yes"}"#, "--user", "alice"]);
    assert!(said.contains("there is no argument \"qurey\"; did you mean \"query\"?"), "{said}");
    assert!(said.contains("the argument \"regex\" must be a Bool, and is \"yes\""), "{said}");
    let said = explain(2, &["code_serch"]);
    assert!(said.contains("there are code_file, code_list_files, code_search, "), "{said}");
    assert!(said.contains("; did you mean code_search?"), "{said}");
}

/// A read-only tool that says nothing else was denied by the shipped guardrail.
#[test]
fn a_read_only_tool_that_says_nothing_else_is_not_destructive() {
    let folder = Folder::new();
    folder.write(
        "rooms.proto",
        "syntax = \"proto3\"; package rooms.v1; import \"drawbridge/mcp/v1/options.proto\";\n\
         message Text { string text = 1; }\n\
         enum Kind { option allow_alias = true; KIND_UNSPECIFIED = 0; KIND_LARGE = 1; KIND_BIG = 1; }\n\
         message Find { Kind kind = 1; repeated Kind kinds = 2; }\n\
         service Rooms { option (drawbridge.mcp.v1.service) = { namespace: \"rooms\" };\n\
         rpc Find(Find) returns (Text) { option (drawbridge.mcp.v1.tool) = { hints: { read_only: true } }; } }",
    );
    let mut compiler =
        protox::Compiler::new([folder.0.path(), &Path::new(REPOSITORY).join("proto/proto")])
            .expect("a compiler");
    compiler
        .include_imports(true)
        .open_file(folder.0.path().join("rooms.proto"))
        .expect("a contract");
    let pool =
        prost_reflect::DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice());
    let contract = drawbridge_sdk::reflection::Contract {
        pool: pool.expect("a contract"),
        services: vec!["rooms.v1.Rooms".to_owned()],
    };
    for (name, text) in drawbridge_cli::policy::schema::files(&contract) {
        folder.write(&format!("catalog/{name}"), &text);
    }
    let rooms = |condition: &str| {
        let permit = "permit (principal, action == Action::\"rooms_find\", resource)";
        folder
            .write("rooms.cedar", &format!("@id(\"rooms\")\n{permit}\nwhen {{ {condition} }};\n"));
    };
    rooms("context.input.kind == \"KIND_LARGE\"");
    // Bob has shown no second factor.
    folder.says(0, &["explain", "rooms_find", r#"{"kind":"KIND_LARGE"}"#, "--user", "bob"]);
    for alias in
        ["context.input.kind == \"KIND_BIG\"", "context.input.kinds.contains(\"KIND_BIG\")"]
    {
        rooms(alias);
        let said = folder.says(1, &["check"]);
        assert!(said.contains("\"KIND_BIG\" is another name of \"KIND_LARGE\""), "{said}");
        assert!(said.contains("help: write \"KIND_LARGE\""), "{said}");
    }
}
