use super::*;

fn url() -> Url {
    "http://127.0.0.1:7180/mcp".parse().unwrap()
}

#[test]
fn each_client_gets_its_own_form() {
    let of = |client| with_entry("", client, "drawbridge", &url()).unwrap().0;
    insta::assert_snapshot!(of(Client::ClaudeCode), @r#"
    {
      "mcpServers": {
        "drawbridge": {
          "type": "http",
          "url": "http://127.0.0.1:7180/mcp"
        }
      }
    }
    "#);
    insta::assert_snapshot!(of(Client::Cursor), @r#"
    {
      "mcpServers": {
        "drawbridge": {
          "url": "http://127.0.0.1:7180/mcp"
        }
      }
    }
    "#);
    insta::assert_snapshot!(of(Client::Vscode), @r#"
    {
      "servers": {
        "drawbridge": {
          "type": "http",
          "url": "http://127.0.0.1:7180/mcp"
        }
      }
    }
    "#);
    insta::assert_snapshot!(of(Client::Inspector), @r#"
    {
      "mcpServers": {
        "drawbridge": {
          "type": "streamable-http",
          "url": "http://127.0.0.1:7180/mcp"
        }
      }
    }
    "#);
}

#[test]
fn other_entries_properties_and_comments_stay() {
    let before = r#"{
    // Ours.
    "servers": {
        "files": { "command": "files", "args": ["/"] }, // local
        "drawbridge": { "url": "http://old.example/mcp", "headers": { "x": "1" } },
    },
    "inputs": []
}
"#;
    let (after, change) = with_entry(before, Client::Vscode, "drawbridge", &url()).unwrap();
    assert_eq!(change, Change::Updated);
    insta::assert_snapshot!(after, @r#"
    {
        // Ours.
        "servers": {
            "files": { "command": "files", "args": ["/"] }, // local
            "drawbridge": {
                "url": "http://127.0.0.1:7180/mcp",
                "headers": { "x": "1" },
                "type": "http"
            },
        },
        "inputs": []
    }
    "#);
    let again = with_entry(&after, Client::Vscode, "drawbridge", &url()).unwrap();
    assert_eq!(again, (after.clone(), Change::Unchanged));
    let (more, change) = with_entry(&after, Client::Vscode, "second", &url()).unwrap();
    assert_eq!(change, Change::Added);
    assert!(more.contains("// Ours.") && more.contains("// local"), "{more}");
}

#[test]
fn a_file_of_another_shape_is_rejected() {
    let problem = |text| with_entry(text, Client::Cursor, "a", &url()).unwrap_err().to_string();
    assert_eq!(problem("[]"), "its content is not a JSON object");
    assert_eq!(problem(r#"{"mcpServers": 1}"#), "`mcpServers` is not a JSON object");
    assert_eq!(problem(r#"{"mcpServers": {"a": 1}}"#), "`a` is not a JSON object");
    assert!(problem("{").starts_with("it is not JSON with comments: "), "{}", problem("{"));
}
