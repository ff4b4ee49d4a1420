//! Mistakes in policies that `check` once accepted, or reported without help.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::Folder;
use crate::REPOSITORY;

/// Regression: `check` accepted a `forbid` of a principal that never matches.
#[test]
fn a_principal_without_an_issuer_or_of_one_that_is_not_accepted_is_an_error() {
    let folder = Folder::new();
    folder.write(
        "who.cedar",
        "@id(\"bob\")\nforbid (principal == User::\"bob\", action == Action::\"code_search\", \
         resource);\n",
    );
    let output = folder.run(1, &["check"]);
    let wanted = "error: ./who.cedar:2:22: User::\"bob\" names no issuer, so it matches no \
        caller\n  |\n2 | forbid (principal == User::\"bob\", ";
    assert!(output.contains(wanted), "{output}");
    assert!(output.contains("help: the id of a User is User::\"<issuer>#<subject>\""), "{output}");

    folder.edit("who.cedar", "bob\",", "http://127.0.0.1:7100/#bob\",");
    folder.run(0, &["check"]);
    folder.write(
        "issuers.toml",
        "[[issuers]]\nissuer = \"http://127.0.0.1:7100\"\naudiences = [\"x\"]\n",
    );
    let output = folder.run(1, &["check", "--issuers", "issuers.toml"]);
    assert!(
        output.contains("./who.cedar:2:29: User::\"http://127.0.0.1:7100/#bob\" names the issuer"),
        "{output}"
    );
    assert!(output.contains("help: did you mean \"http://127.0.0.1:7100\"?"), "{output}");
    folder.edit("who.cedar", "7100/#", "7100#");
    folder.run(0, &["check", "--issuers", "issuers.toml"]);
    // Group memberships name principals too.
    folder.write(
        "entities/more.json",
        r#"[{ "uid": { "type": "User", "id": "https://other.example#eve" },
             "parents": [{ "type": "Group", "id": "support" }] }]"#,
    );
    let output = folder.run(1, &["check", "--issuers", "issuers.toml"]);
    assert!(output.contains("error: ./entities/more.json:1:"), "{output}");
    assert!(output.contains("configured issuers: http://127.0.0.1:7100"), "{output}");
}

#[test]
fn a_group_or_role_that_nothing_else_names_is_a_warning() {
    let folder = Folder::new();
    folder.write(
        "lonely.cedar",
        "@id(\"typo\")\nforbid (principal in Group::\"enginering\", action == \
         Action::\"code_search\", resource);\n\
         @id(\"role\")\nforbid (principal in Role::\"zzz\", action == Action::\"code_search\", \
         resource);\n",
    );
    let output = folder.run(0, &["check"]);
    assert!(
        output.contains("warning: ./lonely.cedar:2:22: nothing else names Group::\"enginering\""),
        "{output}"
    );
    assert!(output.contains("help: did you mean Group::\"engineering\"?"), "{output}");
    assert!(
        output.contains("warning: ./lonely.cedar:4:22: nothing else names Role::\"zzz\""),
        "{output}"
    );
    folder.run(1, &["check", "--deny-warnings"]);
}

/// Regression: `check` accepted an unknown enum value, which never matches.
#[test]
fn a_misspelt_enum_value_is_an_error() {
    let folder = Folder::new();
    let policy = |condition: &str| {
        let text = format!(
            "@id(\"open\")\nforbid (principal, action == Action::\"invoices_search\", \
             resource)\nwhen {{ {condition} }};\n"
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
        let output = folder.run(1, &["check"]);
        assert!(
            output.contains("error: ./status.cedar:3:") && output.contains("input.status is never"),
            "{output}"
        );
        // `test` requires valid policies, so it fails too.
        folder.run(2, &["test"]);
    }
    policy("context.input.status == \"INVOICE_STATUS_APROVED\"");
    assert!(folder.run(1, &["check"]).contains("help: did you mean \"INVOICE_STATUS_APPROVED\"?"));
    policy(
        "context.input.status == \"INVOICE_STATUS_APPROVED\" || context.input.status like \
         \"*_OPEN\"",
    );
    folder.run(0, &["check"]);
}

#[test]
fn an_invalid_argument_of_several_actions_is_one_error() {
    let folder = Folder::new();
    folder.write(
        "wide.cedar",
        "@id(\"wide\")\nforbid (principal, action in Action::\"read_tool\", resource)\n\
         when { context.input.nonsense == \"x\" };\n",
    );
    let report = folder.json(1, &["check"]);
    let problems = report["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(problems.len(), 1, "{report:#}");
    assert!(problems[0]["help"].as_str().is_some_and(|help| help.contains("name the intended")));
}

#[test]
fn explain_reads_development_users_and_tokens_and_suggests_names() {
    let folder = Folder::new();
    let explain = |code, rest: &[&str]| folder.run(code, &[&["explain"], rest].concat());
    let output = explain(0, &["code_search", r#"{"query":"x"}"#, "--user", "alice"]);
    assert!(
        output.starts_with(
            "alice, from the development users file: tenant acme; groups engineering; \
             mfa\ncode_search is allowed"
        ),
        "{output}"
    );
    folder.write(
        "users.toml",
        "[[users]]\nusername = \"zoe\"\npassword = \"x\"\ntenant = \"acme\"\ngroups = \
         [\"engineering\"]\n",
    );
    explain(0, &["code_search", r#"{"query":"x"}"#, "--user", "zoe", "--users", "users.toml"]);
    // Given attributes replace the file's. An unknown user gets a hint.
    explain(1, &["code_search", "--user", "alice", "--group", "support"]);
    let output = explain(1, &["code_search", "--user", "unknown-user"]);
    assert!(output.contains("No group or role of unknown-user is known"), "{output}");

    let claims = json!({
        "iss": "https://idp.example", "sub": "a", "tenant": "acme", "groups": ["engineering"],
    });
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
    folder.write("token", &token);
    let output = explain(0, &["code_search", r#"{"query":"x"}"#, "--token", "token"]);
    assert!(output.starts_with("a of https://idp.example, from the token's claims"), "{output}");
    folder.write("token", "a-secret-and-not-a-token");
    let output = explain(2, &["code_search", "--token", "token"]);
    assert!(
        output.contains("the token is not a signed JWT") && !output.contains("a-secret"),
        "{output}"
    );

    let output = explain(1, &["code_search", r#"{"qurey":"x","regex":"yes"}"#, "--user", "alice"]);
    assert!(output.contains("unknown argument \"qurey\"; did you mean \"query\"?"), "{output}");
    assert!(output.contains("the argument \"regex\" must be a Bool, not \"yes\""), "{output}");
    let output = explain(2, &["code_serch"]);
    assert!(output.contains("it has code_file, code_list_files, code_search, "), "{output}");
    assert!(output.contains("; did you mean code_search?"), "{output}");
}

/// Regression: the shipped guardrail denied a read-only tool without further hints.
#[test]
fn a_read_only_tool_without_further_hints_is_not_destructive() {
    let folder = Folder::new();
    folder.write(
        "venues.proto",
        "syntax = \"proto3\"; package venues.v1; import \"drawbridge/mcp/v1/options.proto\";\n\
         message Text { string text = 1; }\n\
         enum Kind { option allow_alias = true; KIND_UNSPECIFIED = 0; KIND_LARGE = 1; KIND_BIG = \
         1; }\n\
         message Find { Kind kind = 1; repeated Kind kinds = 2; }\n\
         service Venues { option (drawbridge.mcp.v1.service) = { namespace: \"venues\" };\n\
         rpc Find(Find) returns (Text) { option (drawbridge.mcp.v1.tool) = { hints: { read_only: \
         true } }; } }",
    );
    let mut compiler =
        protox::Compiler::new([folder.0.path(), &Path::new(REPOSITORY).join("proto/proto")])
            .expect("a compiler");
    compiler
        .include_imports(true)
        .open_file(folder.0.path().join("venues.proto"))
        .expect("a contract");
    let pool =
        prost_reflect::DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice());
    let contract = drawbridge_contract::Contract {
        pool: pool.expect("a contract"),
        services: vec!["venues.v1.Venues".to_owned()],
    };
    for (name, text) in drawbridge_cli::policy::schema::files(&contract) {
        folder.write(&format!("catalog/{name}"), &text);
    }
    let write_policy = |condition: &str| {
        let permit = "permit (principal, action == Action::\"venues_find\", resource)";
        folder.write(
            "venues.cedar",
            &format!("@id(\"venues\")\n{permit}\nwhen {{ {condition} }};\n"),
        );
    };
    write_policy("context.input.kind == \"KIND_LARGE\"");
    // Bob has no second factor.
    folder.run(0, &["explain", "venues_find", r#"{"kind":"KIND_LARGE"}"#, "--user", "bob"]);
    for alias in
        ["context.input.kind == \"KIND_BIG\"", "context.input.kinds.contains(\"KIND_BIG\")"]
    {
        write_policy(alias);
        let output = folder.run(1, &["check"]);
        assert!(output.contains("\"KIND_BIG\" is an alias of \"KIND_LARGE\""), "{output}");
        assert!(output.contains("help: write \"KIND_LARGE\""), "{output}");
    }
}
