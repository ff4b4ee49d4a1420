use drawbridge_tests::TestMesh;
use serde_json::{Value, json};

use super::result;

const TEXT: &str = "The gateway was changed last night; please try again.";

fn arguments(key: &str, text: &str) -> Value {
    json!({ "ticket_id": "101", "text": text, "idempotency_key": key })
}

#[tokio::test]
async fn a_reply_with_an_idempotency_key_is_posted_once_and_never_logged() {
    let mesh = TestMesh::start().await;
    let bob = mesh.client("bob").await;
    let first = bob.call_tool("tickets_reply", arguments("key-0001", TEXT)).await;
    assert_eq!(result(&first)["already_posted"], false);
    let again = bob.call_tool("tickets_reply", arguments("key-0001", TEXT)).await;
    assert_eq!(result(&again)["already_posted"], true);
    assert_eq!(result(&again)["article_id"], result(&first)["article_id"]);
    let other = bob.call_tool("tickets_reply", arguments("key-0001", "Something else.")).await;
    assert_eq!(other.json["result"]["isError"], true, "{other:?}");
    assert!(other.message().contains("choose a new key"), "{other:?}");
    for wrong in [arguments("short", TEXT), json!({ "ticket_id": "101", "text": TEXT })] {
        let refused = bob.call_tool("tickets_reply", wrong).await;
        assert!(refused.message().contains("idempotency_key"), "{refused:?}");
    }

    let whole = bob.call_tool("tickets_get", json!({ "ticket_id": "101" })).await;
    let articles = result(&whole)["articles"].as_array().expect("articles");
    let posted: Vec<_> = articles.iter().filter(|article| article["text"] == TEXT).collect();
    let [article] = &posted[..] else { panic!("{whole:?}") };
    assert_eq!(article["article_id"], result(&first)["article_id"]);
    assert_eq!((&article["internal"], &article["side"]), (&json!(false), &json!("Agent")));

    let log = mesh.log();
    assert!(log.contains("a reply was posted"));
    assert!(!log.contains("The gateway was changed"), "a reply's text is in the log");
}
