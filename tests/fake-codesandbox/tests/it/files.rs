//! Files of a sandbox.

use pcoder_fake_codesandbox::Options;
use serde_json::{Value, json};

use crate::client::{Agent, Refusal, send, start};

fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> (i64, Option<i64>) {
    let refusal = result.unwrap_err();
    (refusal.code, refusal.errno)
}

#[tokio::test]
async fn content_is_kept_byte_by_byte() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    let content: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    agent.write("b.bin", &content).await.unwrap();
    assert_eq!(agent.read("/project/workspace/b.bin").await.unwrap(), content);
    agent.write("empty", b"").await.unwrap();
    assert_eq!(agent.read("empty").await.unwrap(), b"");
    let (output, code) = agent.run("wc -c <b.bin; stat -c %a b.bin").await;
    assert_eq!((output.as_str(), code), ("1048576\r\n644\r\n", 0));
}

#[tokio::test]
async fn commands_and_files_see_the_same_folders() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    for folder in ["/tmp", "/root", "/project", "/project/workspace"] {
        agent.write(&format!("{folder}/shared"), folder.as_bytes()).await.unwrap();
        assert_eq!(agent.run(&format!("cat {folder}/shared")).await, (folder.to_owned(), 0));
    }
    agent.run("mkdir -p x && ln -s /tmp/shared x/link && ln -s nowhere x/dangling && ln -s /root x/home").await;
    assert_eq!(agent.read("x/link").await.unwrap(), b"/tmp");
    assert_eq!(agent.read("x/home/shared").await.unwrap(), b"/root");
    let list = agent.call("fs/readdir", json!({"path": "x"})).await.unwrap();
    let entry = |name: &str, kind: u8| json!({"name": name, "type": kind, "isSymlink": true});
    assert_eq!(list["entries"], json!([entry("dangling", 0), entry("home", 1), entry("link", 0)]));
    let stat = agent.call("fs/stat", json!({"path": "x/home"})).await.unwrap();
    assert_eq!((&stat["type"], &stat["isSymlink"]), (&json!(1), &json!(true)));
    // Removing a link leaves what it leads to.
    agent.call("fs/remove", json!({"path": "x", "recursive": true})).await.unwrap();
    assert_eq!(agent.read("/root/shared").await.unwrap(), b"/root");
    agent.run("ln -s loop loop").await;
    assert_eq!(refused(agent.read("loop").await), (102, Some(40)));
}

#[tokio::test]
async fn errors_have_the_number_of_the_system() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    agent.write("f", b"1").await.unwrap();
    agent.call("fs/mkdir", json!({"path": "d/e", "recursive": true})).await.unwrap();
    let refusal = agent.read("nope").await.unwrap_err();
    let expected = Refusal { code: 102, message: "No such file or directory".to_owned(), errno: Some(2) };
    assert_eq!(refusal, expected);
    let cases = [
        ("fs/readFile", json!({"path": "d"}), 21),
        ("fs/readFile", json!({"path": "f/x"}), 20),
        ("fs/mkdir", json!({"path": "d"}), 17),
        ("fs/mkdir", json!({"path": "n/m"}), 2),
        ("fs/readdir", json!({"path": "f"}), 20),
        ("fs/stat", json!({"path": "nope"}), 2),
        ("fs/remove", json!({"path": "nope"}), 2),
        ("fs/remove", json!({"path": "d", "recursive": false}), 39),
        ("fs/rename", json!({"from": "nope", "to": "x"}), 2),
        ("fs/rename", json!({"from": "d", "to": "f"}), 17),
        ("fs/copy", json!({"from": "d", "to": "x"}), 21),
        ("fs/copy", json!({"from": "f", "to": "f"}), 17),
        ("fs/watch", json!({"path": "nope"}), 2),
        ("fs/mkdir", json!({"path": "/etc/new"}), 30),
        ("fs/remove", json!({"path": "/etc/passwd"}), 30),
    ];
    for (method, params, errno) in cases {
        assert_eq!(refused(agent.call(method, params.clone()).await), (102, Some(errno)), "{method} {params}");
    }
    assert_eq!(refused(agent.call("fs/stat", json!({"path": "a\0b"})).await), (101, None));
    assert_eq!(refused(agent.call("fs/readFile", json!({})).await), (0, None));
    assert_eq!(refused(agent.call("fs/nonsense", json!({})).await), (1, None));
}

#[tokio::test]
async fn a_write_keeps_to_create_and_overwrite() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    agent.run("echo old >f; chmod 755 f").await;
    let params = |path: &str, create: bool, overwrite: bool| {
        let content = rmpv::Value::Binary(b"new".to_vec());
        let fields: [(_, rmpv::Value); 4] =
            [("path", path.into()), ("content", content), ("create", create.into()), ("overwrite", overwrite.into())];
        rmpv::Value::Map(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
    };
    let id = agent.post_packed("fs/writeFile", params("f", true, false)).await;
    assert_eq!(refused(agent.result(id).await), (102, Some(17)));
    let id = agent.post_packed("fs/writeFile", params("g", false, true)).await;
    assert_eq!(refused(agent.result(id).await), (102, Some(2)));
    let id = agent.post_packed("fs/writeFile", params("f", false, true)).await;
    agent.result(id).await.unwrap();
    assert_eq!(agent.run("cat f; stat -c ' %a' f").await.0, "new 755\r\n");
    agent.call("fs/copy", json!({"from": "f", "to": "c"})).await.unwrap();
    agent.call("fs/rename", json!({"from": "c", "to": "f", "overwrite": true})).await.unwrap();
    assert_eq!(agent.run("ls").await.0, "f\r\n");
}

#[tokio::test]
async fn changes_are_told_to_who_watches() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    agent.run("mkdir -p w/node_modules").await;
    let params = json!({"path": "w", "recursive": true, "excludes": ["**/node_modules/**"]});
    let watch = agent.call("fs/watch", params).await.unwrap()["watchId"].clone();
    for (line, kind) in [("echo 1 >w/yes", "add"), ("echo 22 >w/yes", "change"), ("rm w/yes", "remove")] {
        agent.run(&format!("echo 1 >>w/node_modules/no; {line}")).await;
        let event = json!({"paths": ["/project/workspace/w/yes"], "type": kind});
        let told = agent.wait("fs/watchEvent", |_| true).await;
        assert_eq!(told, json!({"watchId": watch, "events": [event]}));
    }
    agent.call("fs/unwatch", json!({"watchId": watch})).await.unwrap();
    assert_eq!(refused(agent.call("fs/unwatch", json!({"watchId": watch})).await), (100, None));
}

#[tokio::test]
async fn a_session_has_a_workspace_of_its_own_and_may_be_told_to_only_read() {
    let fake = start(Options::default()).await;
    let (id, mut agent) = Agent::fresh(&fake).await;
    let session = async |name: &str, permission: &str| {
        let body = json!({"session_id": name, "permission": permission});
        let (status, body) = send(&fake, "POST", &format!("/vm/{id}/sessions"), body).await;
        assert_eq!(status, 200, "{body}");
        (Agent::join(&body["data"]).await, body["data"]["user_workspace_path"].as_str().unwrap().to_owned())
    };
    let (mut writer, workspace) = session("ann", "write").await;
    writer.write("mine", b"1").await.unwrap();
    assert_eq!(agent.read(&format!("{workspace}/mine")).await.unwrap(), b"1");
    assert_eq!(writer.run("pwd; echo $HOME").await.0, format!("{workspace}\r\n/project/home/ann\r\n"));
    let (mut reader, _) = session("bob", "read").await;
    assert_eq!(refused(reader.write("x", b"1").await), (2, None));
    assert_eq!(refused(reader.call("shell/create", json!({"command": "true"})).await), (200, None));
    assert_eq!(reader.read(&format!("{workspace}/mine")).await.unwrap(), b"1");
    let (status, _) =
        send(&fake, "POST", &format!("/vm/{id}/sessions"), json!({"session_id": "x".repeat(21), "permission": "read"}))
            .await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn a_shutdown_keeps_the_workspace_and_empties_tmp() {
    let fake = start(Options::default()).await;
    let (id, mut agent) = Agent::fresh(&fake).await;
    agent.write("kept", b"1").await.unwrap();
    agent.write("/tmp/gone", b"1").await.unwrap();
    send(&fake, "POST", &format!("/vm/{id}/shutdown"), Value::Null).await;
    assert_eq!(agent.next().await, Err(1001));
    let mut agent = Agent::join(&crate::client::boot(&fake, &id, json!({})).await).await;
    assert_eq!(agent.read("kept").await.unwrap(), b"1");
    assert_eq!(refused(agent.read("/tmp/gone").await), (102, Some(2)));
}

#[tokio::test]
async fn texts_and_names_are_searched_for() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    agent.run("mkdir d; printf 'one\\ntwo one\\n' >d/f.txt; printf '\\377one' >d/binary").await;
    let found = agent.call("fs/search", json!({"text": "one"})).await.unwrap();
    assert_eq!(found.as_array().unwrap().len(), 2);
    assert_eq!(
        (&found[1]["fileId"], &found[1]["lineNumber"], &found[1]["absoluteOffset"]),
        (&json!("d/f.txt"), &json!(2), &json!(4))
    );
    assert_eq!(found[1]["submatches"][0]["start"], 4);
    let found = agent.call("fs/pathSearch", json!({"text": "f.t"})).await.unwrap();
    assert_eq!(found["matches"][0]["path"], "d/f.txt");
}
