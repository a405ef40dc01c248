//! The OpenAI Responses dialect.

use serde_json::{Value, json};

use crate::http::{Answer, joined, post, start, types};
use pcoder_model_server::ModelServer;

const PATH: &str = "/v1/responses";

fn user(text: &str) -> Value {
    json!({ "type": "message", "role": "user", "content": [{ "type": "input_text", "text": text }] })
}

fn request(input: &Value, tools: &Value) -> Value {
    json!({ "model": "m", "stream": true, "tools": tools, "input": input })
}

fn exec_command() -> Value {
    let parameters = json!({ "properties": {
        "cmd": { "type": "string" }, "sandbox_permissions": { "type": "string" }, "justification": { "type": "string" } } });
    json!({ "type": "function", "name": "exec_command", "parameters": parameters })
}

async fn ask(server: &ModelServer, input: Value, tools: Value) -> Answer {
    let answer = post(server, PATH, &request(&input, &tools)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

/// The last item that the answer has.
async fn item(server: &ModelServer, script: &str, tools: Value) -> Value {
    let events = ask(server, json!([user(script)]), tools).await.events();
    let done = events.iter().rfind(|event| event["type"] == "response.output_item.done").unwrap();
    done["item"].clone()
}

fn text(answer: &Answer) -> String {
    joined(&answer.events(), "response.output_text.delta", "/delta")
}

#[tokio::test]
async fn a_reply_is_streamed() {
    let server = start().await;
    let context = user("<environment_context>\n<cwd>/x</cwd>\n</environment_context>");
    let developer = json!({ "type": "message", "role": "developer", "content": [{ "text": "@say no" }] });
    let said = format!("say {}", "ü".repeat(50));
    let answer = ask(&server, json!([developer, user(&said), context]), json!([])).await;
    assert_eq!(text(&answer), format!("offline model: {said}"));
    let events = answer.events();
    assert_eq!(
        types(&events),
        [
            "response.created",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed"
        ]
    );
    let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert!(numbers.iter().enumerate().all(|(index, number)| index as u64 == *number));
    let response = &events.last().unwrap()["response"];
    assert_eq!(response["usage"]["total_tokens"], 15);
    assert_eq!(response["output"][0]["content"][0]["text"], format!("offline model: {said}"));
}

#[tokio::test]
async fn a_script_goes_through_a_conversation() {
    let server = start().await;
    let script = user("@think hm\n@sh echo 'a b' > f\n@say got $RESULT");
    let answer = ask(&server, json!([script]), json!([exec_command()])).await;
    let events = answer.events();
    assert_eq!(joined(&events, "response.reasoning_summary_text.delta", "/delta"), "hm");
    let call = &events.last().unwrap()["response"]["output"][1];
    assert_eq!(call["name"], "exec_command");
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({ "cmd": "echo 'a b' > f" }));
    for output in [
        json!("Chunk ID: 1\nWall time: 0.1 seconds\nProcess exited with code 0\nOutput:\nx\n"),
        json!("Output:\nx"),
        json!("{\"output\":\"x\\n\",\"metadata\":{\"exit_code\":0}}"),
        json!([{ "type": "input_text", "text": "x" }]),
        json!("x"),
    ] {
        let result = json!({ "type": "function_call_output", "call_id": call["call_id"], "output": output });
        let answer = ask(&server, json!([script, call, result]), json!([exec_command()])).await;
        assert_eq!(text(&answer), "got x", "{output}");
    }
    let result = json!({ "type": "function_call_output", "call_id": "c", "output": "x" });
    let answer = ask(&server, json!([script, call, result, user("next")]), json!([])).await;
    assert_eq!(text(&answer), "offline model: next");
}

#[tokio::test]
async fn the_shell_is_called_as_the_engine_declares_it() {
    let server = start().await;
    let function = |name: &str, kind: &str| {
        let parameters = json!({ "properties": { "command": { "type": kind } } });
        json!({ "type": "function", "name": name, "parameters": parameters })
    };
    for (tool, outside, arguments) in [
        (exec_command(), false, json!({ "cmd": "ls" })),
        (
            exec_command(),
            true,
            json!({ "cmd": "ls", "sandbox_permissions": "require_escalated", "justification": "The script asks for it." }),
        ),
        (function("shell_command", "string"), false, json!({ "command": "ls" })),
        (
            function("shell", "array"),
            true,
            json!({ "command": ["bash", "-lc", "ls"], "with_escalated_permissions": true,
                    "justification": "The script asks for it." }),
        ),
    ] {
        let script = if outside { "@shx ls" } else { "@sh ls" };
        let call = item(&server, script, json!([tool])).await;
        assert_eq!(call["name"], tool["name"]);
        let got: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(got, arguments);
    }
    let call = item(&server, "@sh ls", json!([{ "type": "local_shell" }])).await;
    assert_eq!(call["action"]["command"], json!(["bash", "-lc", "ls"]));
    let nothing = item(&server, "@sh ls", json!([{ "type": "web_search" }])).await;
    assert_eq!(nothing["content"][0]["text"], "offline model: this request offers no shell tool");
    // Tools that come as an item of the input are on offer too.
    let added = json!({ "type": "additional_tools", "tools": [exec_command()] });
    let answer = ask(&server, json!([added, user("@sh ls")]), json!([])).await;
    assert_eq!(answer.events().last().unwrap()["response"]["output"][0]["name"], "exec_command");
}

#[tokio::test]
async fn a_patch_goes_where_the_engine_takes_it() {
    let server = start().await;
    let patch = "*** Begin Patch\n*** Add File: a.txt\n+hello you\n*** End Patch\n";
    let script = "@patch a.txt hello you";
    let custom = json!({ "type": "custom", "name": "apply_patch" });
    assert_eq!(item(&server, script, json!([custom])).await["input"], patch);
    let function = json!({ "type": "function", "name": "apply_patch" });
    let call = item(&server, script, json!([function])).await;
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments["input"], patch);
    let call = item(&server, script, json!([exec_command()])).await;
    assert!(call["arguments"].as_str().unwrap().contains("apply_patch <<'END_OF_PATCH'"));
    let named = item(&server, "@tool apply_patch {\"input\":\"x\"}", json!([custom])).await;
    assert_eq!((named["type"].as_str(), named["input"].as_str()), (Some("custom_tool_call"), Some("x")));
    let named = item(&server, "@tool view_image {\"path\":\"x\"}", json!([])).await;
    assert_eq!(named["arguments"], "{\"path\":\"x\"}");
}

#[tokio::test]
async fn the_whole_answer_at_once() {
    let server = start().await;
    let answer = post(&server, PATH, &json!({ "model": "m", "input": "hi" })).await.json();
    assert_eq!(answer["status"], "completed");
    assert_eq!(answer["output"][0]["content"][0]["text"], "offline model: hi");
}

#[tokio::test]
async fn failures_of_every_kind() {
    let server = start().await;
    let refused = post(&server, PATH, &request(&json!([user("@error 429 rate_limit_error")]), &json!([]))).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    let failed = ask(&server, json!([user("@say a\n@fail server_error")]), json!([])).await;
    let events = failed.events();
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.failed");
    assert_eq!(last["response"]["error"]["code"], "server_error");
    let cut = ask(&server, json!([user("@say a\n@drop")]), json!([])).await;
    assert!(!cut.complete);
    let mut whole = request(&json!([user("@say a\n@fail server_error")]), &json!([]));
    whole["stream"] = json!(false);
    assert_eq!(post(&server, PATH, &whole).await.status, 500);
    let upgrade = crate::http::send(&server, "GET /v1/responses", "upgrade: websocket\r\n", "").await;
    assert_eq!(crate::http::read(upgrade).await.status, 426);
}
