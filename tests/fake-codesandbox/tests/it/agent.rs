//! The connection to an agent.

use pcoder_fake_codesandbox::Options;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Agent, boot, fork, http, join, start};

#[tokio::test]
async fn the_first_request_is_to_join() {
    let fake = start(Options::default()).await;
    let id = fork(&fake).await;
    let mut agent = Agent::connect(&boot(&fake, &id, json!({})).await).await.unwrap();
    assert_eq!(agent.call("setup/get", json!({})).await.unwrap_err().code, 2);
    let joined = agent.call("client/join", join()).await.unwrap();
    assert_eq!((&joined["client"]["appId"], &joined["isProtected"]), (&json!("sdk"), &json!(false)));
    let setup = agent.call("setup/get", Value::Null).await.unwrap();
    assert_eq!((&setup["state"], &setup["steps"][0]["finishStatus"]), (&json!("FINISHED"), &json!("SUCCEEDED")));
    assert_eq!(agent.call("port/list", json!({})).await.unwrap(), json!({"list": []}));
    assert_eq!(agent.call("system/update", json!({})).await.unwrap(), json!({}));
    assert_eq!(agent.call("client/list", json!({})).await.unwrap().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_heartbeat_is_answered() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    agent.send_raw(Message::text("")).await;
    assert_eq!(agent.next().await, Ok(json!({"text": ""})));
    assert_eq!(fake.messages().last().unwrap().method, "");
}

#[tokio::test]
async fn a_wrong_token_and_a_wrong_sandbox_are_refused() {
    let fake = start(Options::default()).await;
    let (one, two) = (fork(&fake).await, fork(&fake).await);
    let (mut started, other) = (boot(&fake, &one, json!({})).await, boot(&fake, &two, json!({})).await);
    started["pitcher_token"] = other["pitcher_token"].clone();
    assert!(Agent::connect(&started).await.unwrap_err().contains("401"));
    started["pitcher_url"] = json!(format!("ws://{}/unknown", fake.agents_address()));
    assert!(Agent::connect(&started).await.unwrap_err().contains("404"));
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_connection() {
    let fake = start(Options { max_frame: 1000, ..Options::default() }).await;
    let (id, mut agent) = Agent::fresh(&fake).await;
    agent.write("small", &[1; 800]).await.unwrap();
    agent.send_raw(Message::binary(vec![0; 1001])).await;
    assert_eq!(agent.next().await, Err(1009));
    let mut agent = Agent::join(&boot(&fake, &id, json!({})).await).await;
    agent.send_raw(Message::binary(vec![0xc1])).await;
    assert_eq!(agent.next().await, Err(1003));
}

#[tokio::test]
async fn the_agent_is_spoken_with_over_http_too() {
    let fake = start(Options::default()).await;
    let id = fork(&fake).await;
    let started = boot(&fake, &id, json!({})).await;
    let token = started["pitcher_token"].as_str().unwrap();
    let url = format!("http://{}/{id}?token={token}", fake.agents_address());
    let call = async |method: &str, params: Value| {
        let message = rmpv::ext::to_value(json!({"id": 1, "method": method, "params": params})).unwrap();
        let mut body = Vec::new();
        rmpv::encode::write_value(&mut body, &message).unwrap();
        let request = http().post(&url).header("content-type", "application/x-msgpack").body(body);
        let answer = request.send().await.unwrap().bytes().await.unwrap();
        rmpv::ext::from_value::<Value>(rmpv::decode::read_value(&mut &answer[..]).unwrap()).unwrap()
    };
    let created = call("shell/create", json!({"command": "echo polled; exit 2"})).await;
    let shell = created["result"]["shellId"].clone();
    let ended = loop {
        let opened = call("shell/open", json!({"shellId": shell, "size": {"cols": 80, "rows": 24}})).await;
        if opened["result"]["status"] != "RUNNING" {
            break opened["result"].clone();
        }
    };
    assert_eq!((&ended["exitCode"], &ended["buffer"][0]), (&json!(2), &json!("polled\r\n")));
}
