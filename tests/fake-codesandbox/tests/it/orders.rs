//! Messages in the orders that hurt.

use std::time::Duration;

use pcoder_fake_codesandbox::{Fault, Options, What};
use serde_json::json;

use crate::client::{Agent, start};

#[tokio::test]
async fn a_command_may_end_before_its_creation_is_answered() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    fake.faults().push(Fault::new("shell/create", What::ExitBeforeReply));
    let id = agent.post("shell/create", json!({"command": "exit 3"})).await;
    let exit = agent.wait("shell/exit", |_| true).await;
    assert_eq!(exit["exitCode"], 3);
    assert!(!agent.replied.contains(&id));
    let shell = agent.result(id).await.unwrap();
    assert_eq!((&shell["shellId"], &shell["status"]), (&exit["shellId"], &json!("RUNNING")));
}

#[tokio::test]
async fn output_may_come_after_the_end() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    fake.faults().push(Fault::new("shell/create", What::OutAfterExit));
    let shell = agent.call("shell/create", json!({"command": "echo late"})).await.unwrap()["shellId"].clone();
    agent.wait("shell/exit", |_| true).await;
    assert_eq!(agent.output(&shell), "");
    assert_eq!(agent.wait("shell/out", |_| true).await["out"], "late\r\n");
}

#[tokio::test]
async fn replies_may_come_in_another_order_than_requests() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    fake.faults().push(Fault::new("port/list", What::LateReply).times(2));
    let first = agent.post("port/list", json!({})).await;
    let second = agent.post("system/update", json!({})).await;
    agent.result(first).await.unwrap();
    assert_eq!(agent.replied[agent.replied.len() - 2..], [second, first]);
    // Without another one it comes in the end.
    agent.call("port/list", json!({})).await.unwrap();
}

#[tokio::test]
async fn shuffled_or_not_everything_arrives_once() {
    let fake = start(Options { shuffle_notifications: true, ..Options::default() }).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    let mut early = 0;
    for number in 0..24 {
        let id = agent.post("shell/create", json!({"command": format!("echo {number}; exit {number}")})).await;
        let exit = agent.wait("shell/exit", |params| params["exitCode"] == number).await;
        early += u32::from(!agent.replied.contains(&id));
        let shell = agent.result(id).await.unwrap();
        assert_eq!(shell["shellId"], exit["shellId"]);
        let output = async {
            while agent.output(&shell["shellId"]) != format!("{number}\r\n") {
                agent.call("system/update", json!({})).await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), output).await.unwrap();
    }
    assert!(early >= 8, "{early}");
}
