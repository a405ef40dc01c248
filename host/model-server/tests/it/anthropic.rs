//! The Anthropic Messages dialect.

use serde_json::{Value, json};

use crate::http::{Answer, joined, post, start, types};
use pcoder_model_server::ModelServer;

const PATH: &str = "/v1/messages?beta=true";

fn request(messages: &Value) -> Value {
    let tools = json!([{ "name": "Bash" }, { "name": "Write" }]);
    json!({ "model": "m", "stream": true, "tools": tools, "messages": messages })
}

/// A prompt as Claude Code sends it: its own reminder, then the person's text.
fn prompt(text: &str) -> Value {
    let reminder = "<system-reminder>\nBe brief. @sh rm -rf /\n</system-reminder>";
    json!({ "role": "user", "content": [{ "type": "text", "text": reminder }, { "type": "text", "text": text }] })
}

fn result(content: &Value) -> Value {
    json!({ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t", "content": content }] })
}

async fn ask(server: &ModelServer, messages: Value) -> Answer {
    let answer = post(server, PATH, &request(&messages)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.head.contains("content-type: text/event-stream"));
    answer
}

fn text(answer: &Answer) -> String {
    joined(&answer.events(), "content_block_delta", "/delta/text")
}

#[tokio::test]
async fn a_reply_is_streamed() {
    let server = start().await;
    let prompt = format!("say {}", "ü".repeat(50));
    let answer = ask(&server, json!([{ "role": "user", "content": prompt }])).await;
    assert!(answer.complete);
    assert_eq!(text(&answer), format!("offline model: {prompt}"));
    let events = answer.events();
    assert_eq!(
        types(&events),
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    assert!(events.len() > 7, "more than one delta");
    assert_eq!(events[0]["message"]["model"], "m");
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "end_turn");
}

#[tokio::test]
async fn a_script_goes_through_a_conversation() {
    let server = start().await;
    let script = prompt("@think hm\n@sh echo 'a b' > f\n@say got $RESULT");
    let system = json!({ "role": "system", "content": "@say no" });
    let answer = ask(&server, json!([script, system])).await;
    let events = answer.events();
    assert_eq!(joined(&events, "content_block_delta", "/delta/thinking"), "hm");
    let starts: Vec<_> = events.iter().filter(|event| event["type"] == "content_block_start").collect();
    assert_eq!(starts[1]["content_block"]["name"], "Bash");
    let input = joined(&events, "content_block_delta", "/delta/partial_json");
    let input: Value = serde_json::from_str(&input).unwrap();
    assert_eq!(input["command"], "echo 'a b' > f");
    assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");

    let mut messages = json!([script, { "role": "assistant", "content": [] }, result(&json!("x\n"))]);
    assert_eq!(text(&ask(&server, messages.clone()).await), "got x");
    messages[2] = result(&json!([{ "type": "text", "text": "y" }]));
    assert_eq!(text(&ask(&server, messages.clone()).await), "got y");
    // A new prompt is a new script, even in the message that brings the last result.
    let block = json!({ "type": "text", "text": "next" });
    messages[2]["content"].as_array_mut().unwrap().push(block);
    assert_eq!(text(&ask(&server, messages).await), "offline model: next");
}

#[tokio::test]
async fn tools_are_called_by_their_names_here() {
    let server = start().await;
    let answer = ask(&server, json!([prompt("@patch a.txt hello you")])).await;
    let input = joined(&answer.events(), "content_block_delta", "/delta/partial_json");
    let input: Value = serde_json::from_str(&input).unwrap();
    assert_eq!(input, json!({ "file_path": "a.txt", "content": "hello you\n" }));
    let answer = ask(&server, json!([prompt("@tool Invented {\"a\":[1]}")])).await;
    assert_eq!(joined(&answer.events(), "content_block_delta", "/delta/partial_json"), "{\"a\":[1]}");
    let mut without = request(&json!([prompt("@sh ls")]));
    without["tools"] = json!([]);
    let answer = post(&server, PATH, &without).await;
    assert_eq!(text(&answer), "offline model: this request offers no tool `Bash`");
}

#[tokio::test]
async fn the_whole_answer_at_once() {
    let server = start().await;
    let mut request = request(&json!([prompt("@say hi\n@sleep 0.001\n@sh ls")]));
    request["stream"] = json!(false);
    let answer = post(&server, PATH, &request).await.json();
    assert_eq!(answer["type"], "message");
    assert_eq!(answer["stop_reason"], "tool_use");
    assert_eq!(answer["content"][0], json!({ "type": "text", "text": "hi" }));
    assert_eq!(answer["content"][1]["input"]["command"], "ls");
}

#[tokio::test]
async fn failures_of_every_kind() {
    let server = start().await;
    let refused = post(&server, PATH, &request(&json!([prompt("@error 529 overloaded_error")]))).await;
    assert_eq!(refused.status, 529);
    assert_eq!(refused.json()["error"]["type"], "overloaded_error");
    let failed = ask(&server, json!([prompt("@say a\n@fail api_error")])).await;
    let events = failed.events();
    assert_eq!(events.last().unwrap()["error"]["type"], "api_error");
    let cut = ask(&server, json!([prompt("@say a\n@drop")])).await;
    assert!(!cut.complete);
    assert_eq!(text(&cut), "a");
    for body in ["", "{", "[]"] {
        let stream = crate::http::send(&server, &format!("POST {PATH}"), "", body).await;
        assert_eq!(crate::http::read(stream).await.status, 400, "{body:?}");
    }
    let empty = post(&server, PATH, &json!({})).await;
    assert_eq!(empty.status, 200);
}

#[tokio::test]
async fn tokens_are_counted_somehow() {
    let server = start().await;
    let answer = post(&server, "/v1/messages/count_tokens?beta=true", &json!({ "messages": [] })).await;
    assert_eq!(answer.json()["input_tokens"], 4);
}
