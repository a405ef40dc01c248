//! Connecting, opening sessions, noise, and the ends of it all.

use std::time::Duration;

use pcoder_acp::{AgentError, Client, Closed, Error, Options, Update};
use serde_json::json;

use crate::agent::{LIMIT, connected, options, pipe, reason, with_session};

#[tokio::test]
async fn initialises_and_offers_nothing() {
    let (reads, writes, mut agent) = pipe();
    let (client, request) = tokio::join!(Client::connect(reads, writes, options(), LIMIT), async {
        let request = agent.expect("initialize").await;
        let info = json!({ "name": "fake", "version": "9" });
        let capabilities = json!({ "loadSession": true, "invented": { "later": 1 } });
        let answer = json!({ "protocolVersion": 1, "agentInfo": info, "agentCapabilities": capabilities });
        agent.answer(&request, answer).await;
        request
    });
    assert_eq!(request["params"]["protocolVersion"], 1);
    let capabilities = &request["params"]["clientCapabilities"];
    assert_ne!(capabilities["fs"]["readTextFile"], true);
    assert_ne!(capabilities["fs"]["writeTextFile"], true);
    assert_ne!(capabilities["terminal"], true);
    let client = client.unwrap();
    assert_eq!(client.agent().agent_info.as_ref().unwrap().name, "fake");
    assert!(client.agent().agent_capabilities.load_session);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_answers_costs_the_limit_and_no_more() {
    let (reads, writes, _agent) = pipe();
    let limit = Duration::from_secs(3);
    let error = Client::connect(reads, writes, options(), limit).await.unwrap_err();
    let operation = "initialize";
    assert_eq!(error, Error::Deadline { operation, limit });
}

#[tokio::test]
async fn an_agent_that_dies_at_once_is_noticed_at_once() {
    let (reads, writes, agent) = pipe();
    drop(agent);
    let error = Client::connect(reads, writes, options(), LIMIT).await.unwrap_err();
    assert_eq!(reason(error), Closed::AgentEnded);
}

#[tokio::test]
async fn noise_on_the_output_is_dropped_and_not_answered() {
    let (client, mut agent) = connected(options()).await;
    for noise in ["Starting…", "{", "[1]", r#"{"level":"info","msg":"ready"}"#, "", "  "] {
        agent.line(noise).await;
    }
    let (session, request) = tokio::join!(client.new_session("/p", LIMIT), async {
        // The very next line is the request: nothing answered the noise.
        let request = agent.expect("session/new").await;
        agent.line("half a line, then").await;
        agent.answer(&request, json!({ "sessionId": "s" })).await;
        request
    });
    assert_eq!(session.unwrap().id(), "s");
    assert_eq!(request["params"]["mcpServers"], json!([]));
    assert_eq!(client.ignored_lines(), 5);
}

#[tokio::test]
async fn unknown_notifications_are_ignored_and_unknown_requests_refused() {
    let (_client, mut agent) = connected(options()).await;
    agent.send(json!({ "jsonrpc": "2.0", "method": "_auth/status_update", "params": { "x": 1 } })).await;
    agent.send(json!({ "jsonrpc": "2.0", "id": 0, "method": "fs/read_text_file", "params": { "path": "/etc" } })).await;
    let answer = agent.read().await.unwrap();
    assert_eq!(answer["id"], 0);
    assert_eq!(answer["error"]["code"], AgentError::METHOD_NOT_FOUND);
    agent.send(json!({ "jsonrpc": "2.0", "id": "a", "method": "session/request_permission", "params": {} })).await;
    let answer = agent.read().await.unwrap();
    assert_eq!((answer["id"].as_str(), answer["error"]["code"].as_i64()), (Some("a"), Some(-32602)));
}

#[tokio::test]
async fn an_error_has_code_message_and_details() {
    let (client, mut agent) = connected(options()).await;
    let data = json!({ "details": "no rollout found" });
    let (error, ()) = tokio::join!(client.load_session("gone", "/p", LIMIT), async {
        let request = agent.expect("session/load").await;
        assert_eq!(request["params"]["sessionId"], "gone");
        agent.refuse(&request, json!({ "code": -32603, "message": "Internal error", "data": data })).await;
    });
    let Error::Agent { operation, source } = error.unwrap_err() else { panic!("not the agent's error") };
    assert_eq!(operation, "session/load");
    assert_eq!((source.code, source.details()), (-32603, Some("no rollout found")));
    // The name is free again.
    let (error, ()) = tokio::join!(client.load_session("gone", "/p", LIMIT), async {
        let request = agent.expect("session/load").await;
        agent.refuse(&request, json!({ "code": -32000, "message": "Authentication required" })).await;
    });
    assert!(error.unwrap_err().is_auth_required());
}

#[tokio::test]
async fn logs_in_with_what_the_way_wants() {
    let (client, mut agent) = connected(options()).await;
    let meta = json!({ "api-key": { "apiKey": "k" } });
    let fields = meta.as_object().unwrap().clone();
    let (done, ()) = tokio::join!(client.authenticate("api-key", fields, LIMIT), async {
        let request = agent.expect("authenticate").await;
        assert_eq!(request["params"], json!({ "methodId": "api-key", "_meta": meta }));
        agent.answer(&request, json!({})).await;
    });
    done.unwrap();
}

#[tokio::test]
async fn a_loaded_session_brings_its_history() {
    let (client, mut agent) = connected(options()).await;
    let loaded = tokio::join!(client.load_session("s", "/p", LIMIT), async {
        let request = agent.expect("session/load").await;
        let content = json!({ "type": "text", "text": "hi" });
        agent.update("s", json!({ "sessionUpdate": "user_message_chunk", "content": content })).await;
        agent.say("hello").await;
        agent.answer(&request, json!({})).await;
    });
    let (session, history) = loaded.0.unwrap();
    assert_eq!(history, [Update::UserText("hi".into()), Update::Text("hello".into())]);
    assert_eq!(client.load_session("s", "/p", LIMIT).await.unwrap_err(), Error::Busy);
    drop(session);
}

#[tokio::test]
async fn what_comes_before_a_new_session_has_its_name_is_kept() {
    let (client, mut agent) = connected(options()).await;
    // Of a session that nobody opens: not kept. (The answered question proves that it was read.)
    agent.say("nobody").await;
    agent.ask(0).await;
    assert_eq!(agent.read().await.unwrap()["result"]["outcome"]["outcome"], "cancelled");
    let (session, ()) = tokio::join!(client.new_session("/p", LIMIT), async {
        let request = agent.expect("session/new").await;
        agent.say("early").await;
        agent.answer(&request, json!({ "sessionId": "s" })).await;
    });
    assert_eq!(session.unwrap().late_updates(), [Update::Text("early".into())]);
}

#[tokio::test]
async fn a_mode_is_set() {
    let (_client, session, mut agent) = with_session(options()).await;
    let (done, ()) = tokio::join!(session.set_mode("plan", LIMIT), async {
        let request = agent.expect("session/set_mode").await;
        assert_eq!(request["params"], json!({ "sessionId": "s", "modeId": "plan" }));
        agent.answer(&request, json!({})).await;
    });
    done.unwrap();
}

#[tokio::test]
async fn a_line_without_an_end_is_refused() {
    let mut options: Options = options();
    options.max_line = 1000;
    let (client, mut session, mut agent) = with_session(options).await;
    let mut turn = session.prompt("x").unwrap();
    agent.expect("session/prompt").await;
    agent.line(&"a".repeat(1001)).await;
    let too_long = Closed::LineTooLong { limit: 1000 };
    assert_eq!(reason(turn.next(LIMIT).await.unwrap_err()), too_long);
    assert_eq!(client.closed().await, too_long);
    assert_eq!(reason(client.new_session("/p", LIMIT).await.unwrap_err()), too_long);
}

#[tokio::test]
async fn closing_gives_the_agent_the_end_of_its_input() {
    let (client, mut session, mut agent) = with_session(options()).await;
    let mut turn = session.prompt("x").unwrap();
    agent.expect("session/prompt").await;
    client.close(LIMIT).await.unwrap();
    assert_eq!(agent.read().await, None);
    assert_eq!(reason(turn.next(LIMIT).await.unwrap_err()), Closed::Here);
    assert_eq!(reason(session.prompt("y").unwrap_err()), Closed::Here);
}

#[tokio::test]
async fn dropping_client_and_sessions_closes_too() {
    let (client, mut session, mut agent) = with_session(options()).await;
    session.prompt("x").unwrap();
    agent.expect("session/prompt").await;
    drop(client);
    agent.say("still here").await;
    assert!(session.turn().unwrap().next(LIMIT).await.is_ok());
    drop(session);
    assert_eq!(agent.read().await, None);
}
