//! The Anthropic Messages dialect: requests read, answers written. Pure.

use serde_json::{Value, json};

use crate::reply::{Conversation, Part, is_context, pieces};
use crate::script::Call;
use crate::sse::{Frame, event};

/// Token counts are constants: nothing here counts tokens.
const INPUT_TOKENS: u32 = 10;
const OUTPUT_TOKENS: u32 = 5;

/// Where the conversation of a request stands.
pub(crate) fn conversation(request: &Value) -> Conversation {
    let mut found = Conversation::default();
    let mut context = String::new();
    // The engine also sends messages in the role `system`; they are never the person's.
    let messages = array(&request["messages"]).iter().filter(|message| message["role"] == "user");
    for message in messages {
        let whole = [message["content"].clone()];
        let blocks = if message["content"].is_string() { &whole[..] } else { array(&message["content"]) };
        for block in blocks {
            if block["type"] == "tool_result" {
                found.results.push(text_of(&block["content"]));
            } else if let Some(text) = block.as_str().or_else(|| block["text"].as_str()) {
                if is_context(text) {
                    text.clone_into(&mut context);
                } else {
                    text.clone_into(&mut found.prompt);
                    found.results.clear();
                }
            }
        }
    }
    if found.prompt.is_empty() {
        found.prompt = context;
    }
    found
}

/// The names of the tools on offer.
pub(crate) fn tools(request: &Value) -> Vec<String> {
    let names = array(&request["tools"]).iter().filter_map(|tool| tool["name"].as_str());
    names.map(str::to_owned).collect()
}

/// The answer as a stream of events.
pub(crate) fn stream(request: &Value, parts: Vec<Part>, id: &str, chunk: usize) -> Vec<Frame> {
    let mut frames = vec![event("message_start", json!({ "message": message(request, id, &[], Value::Null) }))];
    let mut stop_reason = "end_turn";
    let mut index = 0;
    for part in parts {
        let (start, deltas, end) = match part {
            Part::Pause(pause) => {
                frames.push(Frame::Pause(pause));
                continue;
            }
            Part::Fail(code) => {
                frames.push(event("error", error(&code)));
                return frames;
            }
            Part::Cut => {
                frames.push(Frame::Cut);
                return frames;
            }
            Part::Text(text) => {
                (json!({ "type": "text", "text": "" }), deltas(&text, chunk, "text_delta", "text"), None)
            }
            Part::Thought(text) => (
                json!({ "type": "thinking", "thinking": "", "signature": "" }),
                deltas(&text, chunk, "thinking_delta", "thinking"),
                Some(json!({ "type": "signature_delta", "signature": "offline" })),
            ),
            Part::Call(call) => match tool_use(request, call, id) {
                Ok((mut block, input)) => {
                    stop_reason = "tool_use";
                    block["input"] = json!({});
                    let input = input.to_string();
                    (block, deltas(&input, chunk, "input_json_delta", "partial_json"), None)
                }
                Err(text) => (json!({ "type": "text", "text": "" }), deltas(&text, chunk, "text_delta", "text"), None),
            },
        };
        frames.push(event("content_block_start", json!({ "index": index, "content_block": start })));
        for delta in deltas.into_iter().chain(end) {
            frames.push(event("content_block_delta", json!({ "index": index, "delta": delta })));
        }
        frames.push(event("content_block_stop", json!({ "index": index })));
        index += 1;
    }
    frames.push(event(
        "message_delta",
        json!({ "delta": { "stop_reason": stop_reason, "stop_sequence": null },
                "usage": { "output_tokens": OUTPUT_TOKENS } }),
    ));
    frames.push(event("message_stop", json!({})));
    frames
}

/// The answer in one piece. Pauses, cuts and failures are not part of it.
pub(crate) fn whole(request: &Value, parts: Vec<Part>, id: &str) -> Value {
    let mut content = Vec::new();
    let mut stop_reason = "end_turn";
    for part in parts {
        match part {
            Part::Text(text) => content.push(json!({ "type": "text", "text": text })),
            Part::Thought(text) => {
                content.push(json!({ "type": "thinking", "thinking": text, "signature": "offline" }));
            }
            Part::Call(call) => match tool_use(request, call, id) {
                Ok((mut block, input)) => {
                    stop_reason = "tool_use";
                    block["input"] = input;
                    content.push(block);
                }
                Err(text) => content.push(json!({ "type": "text", "text": text })),
            },
            Part::Pause(_) | Part::Fail(_) | Part::Cut => {}
        }
    }
    message(request, id, &content, Value::from(stop_reason))
}

/// The body of an HTTP error, and of an error in a stream.
pub(crate) fn error(kind: &str) -> Value {
    json!({ "type": "error", "error": { "type": kind, "message": format!("offline model: {kind}") } })
}

fn message(request: &Value, id: &str, content: &[Value], stop_reason: Value) -> Value {
    json!({
        "id": format!("msg_{id}"),
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": { "input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS,
                   "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0 },
    })
}

fn deltas(text: &str, chunk: usize, kind: &str, field: &str) -> Vec<Value> {
    let pieces = pieces(text, chunk).into_iter();
    pieces.map(|piece| json!({ "type": kind, field: piece })).collect()
}

/// The block of a tool call and its input, or what to say when the request offers no such tool.
fn tool_use(request: &Value, call: Call, id: &str) -> Result<(Value, Value), String> {
    let (name, input) = match call {
        // A tool that is asked for by name is asked for even if the agent has none such: that it copes is worth a test.
        Call::Named { tool, input } => (tool, Value::Object(input)),
        Call::Shell { command, .. } => {
            (offered(request, "Bash")?, json!({ "command": command, "description": "Run a scripted command" }))
        }
        Call::Write { file, text } => {
            (offered(request, "Write")?, json!({ "file_path": file, "content": format!("{text}\n") }))
        }
    };
    let block = json!({ "type": "tool_use", "id": format!("toolu_{id}"), "name": name });
    Ok((block, input))
}

fn offered(request: &Value, name: &str) -> Result<String, String> {
    if array(&request["tools"]).iter().any(|tool| tool["name"] == name) {
        Ok(name.to_owned())
    } else {
        Err(format!("offline model: this request offers no tool `{name}`"))
    }
}

fn text_of(content: &Value) -> String {
    if let Some(text) = content.as_str() {
        return text.to_owned();
    }
    let texts = array(content).iter().filter_map(|block| block["text"].as_str());
    texts.collect::<Vec<_>>().join("\n")
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
