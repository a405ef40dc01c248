//! The OpenAI Responses dialect: requests read, answers written. Pure.

use serde_json::{Value, json};

use crate::reply::{Conversation, Part, is_context, pieces};
use crate::script::Call;
use crate::sse::{Frame, event};

/// Where the conversation of a request stands.
pub(crate) fn conversation(request: &Value) -> Conversation {
    let mut found = Conversation::default();
    let mut context = String::new();
    if let Some(text) = request["input"].as_str() {
        text.clone_into(&mut found.prompt);
    }
    for item in array(&request["input"]) {
        let kind = item["type"].as_str().unwrap_or("message");
        if kind.ends_with("_call_output") {
            found.results.push(output_of(&item["output"]));
        } else if kind == "message" && item["role"] == "user" {
            let whole = [item["content"].clone()];
            let blocks = if item["content"].is_string() { &whole[..] } else { array(&item["content"]) };
            for text in blocks.iter().filter_map(|block| block.as_str().or_else(|| block["text"].as_str())) {
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

/// The names of the tools on offer; the built-in ones have none and go by their type.
pub(crate) fn tools(request: &Value) -> Vec<String> {
    offered(request)
        .filter_map(|tool| tool["name"].as_str().or_else(|| tool["type"].as_str()))
        .map(str::to_owned)
        .collect()
}

/// The answer as a stream of events.
pub(crate) fn stream(request: &Value, parts: Vec<Part>, id: &str, chunk: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut number = 0;
    let mut send = |frames: &mut Vec<Frame>, name: &str, mut data: Value| {
        data["sequence_number"] = Value::from(number);
        number += 1;
        frames.push(event(name, data));
    };
    let begun = response(request, id, "in_progress", &[]);
    send(&mut frames, "response.created", json!({ "response": begun }));
    let mut output = Vec::new();
    for part in parts {
        let item = match part {
            Part::Pause(pause) => {
                frames.push(Frame::Pause(pause));
                continue;
            }
            Part::Cut => {
                frames.push(Frame::Cut);
                return frames;
            }
            Part::Fail(code) => {
                let mut failed = response(request, id, "failed", &output);
                failed["error"] = json!({ "code": code, "message": format!("offline model: {code}") });
                send(&mut frames, "response.failed", json!({ "response": failed }));
                return frames;
            }
            part => item(request, part, id, output.len()),
        };
        let index = output.len();
        let place = json!({ "item_id": item["id"], "output_index": index });
        let with = |field: &str, value: Value| {
            let mut data = place.clone();
            data[field] = value;
            data
        };
        let mut empty = item.clone();
        empty["status"] = "in_progress".into();
        for field in ["content", "summary"] {
            if item[field].is_array() {
                empty[field] = json!([]);
            }
        }
        send(&mut frames, "response.output_item.added", json!({ "output_index": index, "item": empty }));
        if let Some(text) = item["content"][0]["text"].as_str() {
            let mut part = with("part", json!({ "type": "output_text", "text": "", "annotations": [] }));
            part["content_index"] = 0.into();
            send(&mut frames, "response.content_part.added", part);
            for piece in pieces(text, chunk) {
                let mut delta = with("delta", piece.into());
                delta["content_index"] = 0.into();
                send(&mut frames, "response.output_text.delta", delta);
            }
            let mut done = with("text", text.into());
            done["content_index"] = 0.into();
            send(&mut frames, "response.output_text.done", done);
            let mut part = with("part", item["content"][0].clone());
            part["content_index"] = 0.into();
            send(&mut frames, "response.content_part.done", part);
        } else if let Some(text) = item["summary"][0]["text"].as_str() {
            let mut part = with("part", json!({ "type": "summary_text", "text": "" }));
            part["summary_index"] = 0.into();
            send(&mut frames, "response.reasoning_summary_part.added", part);
            for piece in pieces(text, chunk) {
                let mut delta = with("delta", piece.into());
                delta["summary_index"] = 0.into();
                send(&mut frames, "response.reasoning_summary_text.delta", delta);
            }
            let mut done = with("text", text.into());
            done["summary_index"] = 0.into();
            send(&mut frames, "response.reasoning_summary_text.done", done);
        }
        send(&mut frames, "response.output_item.done", json!({ "output_index": index, "item": item }));
        output.push(item);
    }
    let done = response(request, id, "completed", &output);
    send(&mut frames, "response.completed", json!({ "response": done }));
    frames
}

/// The answer in one piece. Pauses, cuts and failures are not part of it.
pub(crate) fn whole(request: &Value, parts: Vec<Part>, id: &str) -> Value {
    let mut output = Vec::new();
    for part in parts {
        if !matches!(part, Part::Pause(_) | Part::Fail(_) | Part::Cut) {
            output.push(item(request, part, id, output.len()));
        }
    }
    response(request, id, "completed", &output)
}

/// The body of an HTTP error.
pub(crate) fn error(kind: &str) -> Value {
    json!({ "error": { "type": kind, "code": kind, "param": null, "message": format!("offline model: {kind}") } })
}

fn response(request: &Value, id: &str, status: &str, output: &[Value]) -> Value {
    let usage = (status == "completed").then(|| {
        json!({ "input_tokens": 10, "input_tokens_details": { "cached_tokens": 0 },
                "output_tokens": 5, "output_tokens_details": { "reasoning_tokens": 0 },
                "total_tokens": 15 })
    });
    json!({
        "id": format!("resp_{id}"), "object": "response", "created_at": 0, "status": status,
        "model": request["model"], "output": output, "error": null, "incomplete_details": null, "usage": usage,
    })
}

/// The output item of a part that has one.
fn item(request: &Value, part: Part, id: &str, index: usize) -> Value {
    let text = match part {
        Part::Thought(text) => {
            return json!({ "id": format!("rs_{id}_{index}"), "type": "reasoning",
                           "summary": [{ "type": "summary_text", "text": text }] });
        }
        Part::Call(call) => match tool_call(request, call, id, index) {
            Ok(item) => return item,
            Err(text) => text,
        },
        Part::Text(text) => text,
        Part::Pause(_) | Part::Fail(_) | Part::Cut => String::new(),
    };
    json!({ "id": format!("msg_{id}_{index}"), "type": "message", "role": "assistant", "status": "completed",
            "content": [{ "type": "output_text", "text": text, "annotations": [] }] })
}

/// A tool call, or what to say when the request offers no tool for it.
fn tool_call(request: &Value, call: Call, id: &str, index: usize) -> Result<Value, String> {
    match call {
        Call::Named { tool, input } => {
            let custom = offered(request).any(|offer| offer["type"] == "custom" && offer["name"] == *tool);
            if custom {
                let input = input.get("input").and_then(Value::as_str).unwrap_or_default();
                Ok(custom_call(&tool, input, id, index))
            } else {
                Ok(function_call(&tool, &Value::Object(input), id, index))
            }
        }
        Call::Shell { command, outside } => shell_call(request, &command, outside, id, index),
        Call::Write { file, text } => {
            let patch = format!("*** Begin Patch\n*** Add File: {file}\n+{text}\n*** End Patch\n");
            match offered(request).find(|tool| tool["name"] == "apply_patch") {
                Some(tool) if tool["type"] == "custom" => Ok(custom_call("apply_patch", &patch, id, index)),
                Some(_) => Ok(function_call("apply_patch", &json!({ "input": patch }), id, index)),
                // Engines without that tool know the command in their shell.
                None => {
                    let command = format!("apply_patch <<'END_OF_PATCH'\n{patch}END_OF_PATCH\n");
                    shell_call(request, &command, false, id, index)
                }
            }
        }
    }
}

/// The engine's shell tool differs by version and model, in name and in shape: its declared parameters say how to call it.
fn shell_call(request: &Value, command: &str, outside: bool, id: &str, index: usize) -> Result<Value, String> {
    const NAMES: [&str; 4] = ["exec_command", "shell_command", "shell", "container.exec"];
    let words = || json!(["bash", "-lc", command]);
    for name in NAMES {
        let Some(tool) = offered(request).find(|tool| tool["type"] == "function" && tool["name"] == name) else {
            continue;
        };
        let parameters = &tool["parameters"]["properties"];
        let mut input = if parameters["cmd"].is_object() {
            json!({ "cmd": command })
        } else if parameters["command"]["type"] == "array" {
            json!({ "command": words() })
        } else {
            json!({ "command": command })
        };
        if outside {
            if parameters["sandbox_permissions"].is_object() {
                input["sandbox_permissions"] = "require_escalated".into();
            } else {
                input["with_escalated_permissions"] = true.into();
            }
            input["justification"] = "The script asks for it.".into();
        }
        return Ok(function_call(name, &input, id, index));
    }
    if offered(request).any(|tool| tool["type"] == "local_shell") {
        return Ok(json!({
            "id": format!("lsh_{id}_{index}"), "type": "local_shell_call", "call_id": format!("call_{id}"),
            "status": "completed", "action": { "type": "exec", "command": words(), "env": {} },
        }));
    }
    Err("offline model: this request offers no shell tool".to_owned())
}

fn function_call(name: &str, input: &Value, id: &str, index: usize) -> Value {
    json!({ "id": format!("fc_{id}_{index}"), "type": "function_call", "call_id": format!("call_{id}"),
            "name": name, "arguments": input.to_string(), "status": "completed" })
}

fn custom_call(name: &str, input: &str, id: &str, index: usize) -> Value {
    json!({ "id": format!("ctc_{id}_{index}"), "type": "custom_tool_call", "call_id": format!("call_{id}"),
            "name": name, "input": input, "status": "completed" })
}

/// A tool's output without the header that the engine puts before it.
fn output_of(output: &Value) -> String {
    let text = match output.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let texts = array(output).iter().filter_map(|block| block["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
    };
    // The older shape is JSON in a string.
    let text = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(fields)) => match fields.get("output").and_then(Value::as_str) {
            Some(output) => output.to_owned(),
            None => text,
        },
        _ => text,
    };
    match text.split_once("Output:\n") {
        Some((header, output)) if header.is_empty() || header.ends_with('\n') => output.to_owned(),
        _ => text,
    }
}

/// Every tool on offer: newer engines add some as an item of the input.
fn offered(request: &Value) -> impl Iterator<Item = &Value> {
    let added = array(&request["input"]).iter().filter(|item| item["type"] == "additional_tools");
    array(&request["tools"]).iter().chain(added.flat_map(|item| array(&item["tools"])))
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
