//! Files, which are text here.

use jiff::Timestamp;
use rmpv::Value as Packed;
use serde_json::{Value, json};

use super::{Answer, Call, Done, data};
use crate::cloud::ApiError;
use crate::pitcher::{Caller, PitcherError, files};

/// Answers what is below `files`, `file_stat` and `directories`.
pub(super) async fn answer(caller: &Caller, call: &Call, noun: &str, path: &str) -> Done {
    if path.is_empty() && noun != "directories" {
        return Err(ApiError::new(400, "A path is required"));
    }
    let at = if path.is_empty() { "." } else { path };
    let done = |what: &str| json!({"message": format!("{what} successfully"), "path": path});
    match (noun, call.method.as_str()) {
        ("files", "POST") => {
            let text = call.body["content"].as_str().unwrap_or_default();
            let params = [("path", at.into()), ("content", Packed::Binary(text.as_bytes().to_vec()))];
            ask(caller, "fs/writeFile", params.to_vec()).await?;
            Ok(Answer::Data(201, json!({"path": path, "content": text})))
        }
        ("files", "GET") => {
            let read = ask(caller, "fs/readFile", vec![("path", at.into())]).await?;
            let content = read.as_map().and_then(|fields| fields.first()).and_then(|(_, content)| content.as_slice());
            data(json!({"path": path, "content": String::from_utf8_lossy(content.unwrap_or_default())}))
        }
        ("files", "DELETE") => {
            ask(caller, "fs/remove", vec![("path", at.into())]).await?;
            data(done("File deleted"))
        }
        ("files", "PATCH") => {
            let (action, to) = (call.text("action")?, call.text("destination")?);
            let method = match action.as_str() {
                "move" => "fs/rename",
                "copy" => "fs/copy",
                _ => return Err(ApiError::new(400, "Unknown action")),
            };
            let params = vec![("from", at.into()), ("to", to.as_str().into()), ("overwrite", true.into())];
            ask(caller, method, params).await?;
            data(json!({"message": "File action completed", "from": path, "to": to}))
        }
        ("file_stat", "GET") => data(stat(caller, path).await?),
        ("directories", "POST") => {
            ask(caller, "fs/mkdir", vec![("path", at.into()), ("recursive", true.into())]).await?;
            Ok(Answer::Data(201, done("Directory created")))
        }
        ("directories", "GET") => {
            let list: Value = plain(ask(caller, "fs/readdir", vec![("path", at.into())]).await?);
            let mut shown = Vec::new();
            for name in list["entries"].as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str()) {
                // One that is gone by now is not there, and a link to nothing cannot be told here.
                shown.extend(stat(caller, &format!("{}/{name}", at.trim_end_matches('/'))).await.ok());
            }
            data(json!({"path": path, "files": shown}))
        }
        ("directories", "DELETE") => {
            ask(caller, "fs/remove", vec![("path", at.into()), ("recursive", true.into())]).await?;
            data(done("Directory deleted"))
        }
        _ => Err(ApiError::new(405, "Method not allowed")),
    }
}

async fn stat(caller: &Caller, path: &str) -> Result<Value, ApiError> {
    let stat: Value = plain(ask(caller, "fs/stat", vec![("path", path.into())]).await?);
    let changed = stat["mtime"].as_i64().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let folder = stat["type"] == 1;
    Ok(json!({"name": name, "path": path, "isDir": folder, "size": stat["size"], "modTime": changed}))
}

/// Asks as the other agent is asked: files are the same.
async fn ask(caller: &Caller, method: &'static str, params: Vec<(&str, Packed)>) -> Result<Packed, ApiError> {
    let params = params.into_iter().map(|(name, value)| (name.into(), value)).collect();
    files(caller, method, Packed::Map(params)).await.map_err(|error: PitcherError| {
        let status = match error.errno.flatten() {
            Some(2) => 404,
            Some(17 | 39) => 409,
            Some(13 | 30) => 403,
            Some(20 | 21 | 40) => 400,
            _ if error.code == 2 => 403,
            _ => 500,
        };
        let message = if status == 404 { "not found".to_owned() } else { error.message };
        ApiError::new(status, message)
    })
}

fn plain(packed: Packed) -> Value {
    rmpv::ext::from_value(packed).unwrap_or_default()
}
