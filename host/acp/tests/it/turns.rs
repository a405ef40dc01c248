//! Prompts, questions, cancels.

use std::time::Duration;

use pcoder_acp::schema::PermissionOptionKind;
use pcoder_acp::{Closed, Error, Event, PermissionRequest, Stop, Turn, Update, Usage};
use serde_json::{Value, json};

use crate::agent::{Agent, LIMIT, options, reason, with_session};

fn end_turn() -> Value {
    json!({ "stopReason": "end_turn" })
}

async fn text(turn: &mut Turn<'_>) -> String {
    match turn.next(LIMIT).await.unwrap() {
        Event::Update(Update::Text(text)) => text,
        other => panic!("not a text: {other:?}"),
    }
}

async fn question(turn: &mut Turn<'_>) -> PermissionRequest {
    match turn.next(LIMIT).await.unwrap() {
        Event::Permission(request) => request,
        other => panic!("not a question: {other:?}"),
    }
}

async fn outcome(agent: &mut Agent, id: u64) -> Value {
    let answer = agent.read().await.unwrap();
    assert_eq!(answer["id"], id, "{answer}");
    answer["result"]["outcome"].clone()
}

#[tokio::test]
async fn a_turn_has_its_events_in_order_and_an_end() {
    let (_client, mut session, mut agent) = with_session(options()).await;
    let mut turn = session.prompt("hello").unwrap();
    let request = agent.expect("session/prompt").await;
    let prompt = json!([{ "type": "text", "text": "hello" }]);
    assert_eq!(request["params"], json!({ "sessionId": "s", "prompt": prompt }));
    agent.say("one").await;
    agent.update("s", json!({ "sessionUpdate": "invented_later" })).await;
    agent.say("two").await;
    let usage = json!({ "inputTokens": 1, "outputTokens": 2, "totalTokens": 3 });
    agent.answer(&request, json!({ "stopReason": "end_turn", "usage": usage })).await;
    assert_eq!(text(&mut turn).await, "one");
    let unknown = turn.next(LIMIT).await.unwrap();
    assert!(matches!(unknown, Event::Update(Update::Unknown(_))), "{unknown:?}");
    assert_eq!(text(&mut turn).await, "two");
    let Event::End(end) = turn.next(LIMIT).await.unwrap() else { panic!("no end") };
    assert_eq!(end.stop, Stop::EndTurn);
    let usage = Usage { input_tokens: 1, output_tokens: 2, total_tokens: 3 };
    assert_eq!(end.usage, Some(usage));
    assert_eq!(turn.next(LIMIT).await.unwrap_err(), Error::Idle);
}

#[tokio::test]
async fn an_update_after_the_end_is_not_lost_and_not_the_next_turns() {
    let (_client, mut session, mut agent) = with_session(options()).await;
    let turn = session.prompt("a").unwrap();
    let request = agent.expect("session/prompt").await;
    agent.answer(&request, end_turn()).await;
    assert_eq!(turn.finish(LIMIT).await.unwrap().stop, Stop::EndTurn);
    let late = json!({ "sessionUpdate": "tool_call_update", "toolCallId": "t", "status": "completed" });
    agent.update("s", late).await;
    // An answered request proves that what was sent before it was read.
    agent.ask(0).await;
    assert_eq!(outcome(&mut agent, 0).await["outcome"], "cancelled");
    let turn = session.prompt("b").unwrap();
    let request = agent.expect("session/prompt").await;
    agent.answer(&request, end_turn()).await;
    assert_eq!(turn.finish(LIMIT).await.unwrap().stop, Stop::EndTurn);
    let late = session.late_updates();
    assert!(matches!(&late[..], [Update::ToolCallUpdate(_)]), "{late:?}");
}

#[tokio::test]
async fn a_second_prompt_is_refused_while_one_is_in_flight() {
    let (_client, mut session, mut agent) = with_session(options()).await;
    session.prompt("a").unwrap();
    let request = agent.expect("session/prompt").await;
    assert_eq!(session.prompt("b").unwrap_err(), Error::Busy);
    agent.say("still there").await;
    agent.answer(&request, end_turn()).await;
    let mut turn = session.turn().unwrap();
    assert_eq!(text(&mut turn).await, "still there");
    assert_eq!(turn.finish(LIMIT).await.unwrap().stop, Stop::EndTurn);
    assert!(session.turn().is_none());
    // Only now does the agent hear of another one.
    session.prompt("c").unwrap();
    assert_eq!(agent.expect("session/prompt").await["params"]["prompt"][0]["text"], "c");
}

#[tokio::test]
async fn sessions_do_not_wait_for_each_other() {
    let (client, mut first, mut agent) = with_session(options()).await;
    let (second, ()) = tokio::join!(client.new_session("/q", LIMIT), async {
        let request = agent.expect("session/new").await;
        agent.answer(&request, json!({ "sessionId": "s2" })).await;
    });
    let mut second = second.unwrap();
    first.prompt("a").unwrap();
    agent.expect("session/prompt").await;
    let turn = second.prompt("b").unwrap();
    let request = agent.expect("session/prompt").await;
    agent.answer(&request, end_turn()).await;
    assert_eq!(turn.finish(LIMIT).await.unwrap().stop, Stop::EndTurn);
}

#[tokio::test]
async fn a_question_is_answered_by_kind_whatever_its_id_and_names() {
    let (_client, mut session, mut agent) = with_session(options()).await;
    let mut turn = session.prompt("a").unwrap();
    agent.expect("session/prompt").await;
    // 0 is also the number of the client's own first request.
    agent.ask(0).await;
    let request = question(&mut turn).await;
    assert_eq!(request.tool_call().fields.title.as_deref(), Some("rm"));
    assert_eq!(request.options().len(), 3);
    let missing = request.choose(PermissionOptionKind::RejectAlways);
    assert_eq!(missing, Err(Error::NoSuchOption));
    request.choose(PermissionOptionKind::AllowOnce).unwrap();
    let twice = request.choose(PermissionOptionKind::AllowOnce);
    assert_eq!(twice, Err(Error::NotOpen));
    let selected = json!({ "outcome": "selected", "optionId": "allow-with-fries" });
    assert_eq!(outcome(&mut agent, 0).await, selected);

    agent.ask(1).await;
    question(&mut turn).await.choose(PermissionOptionKind::RejectOnce).unwrap();
    assert_eq!(outcome(&mut agent, 1).await["optionId"], "cancel");

    agent.ask(2).await;
    drop(question(&mut turn).await);
    assert_eq!(outcome(&mut agent, 2).await["outcome"], "cancelled");
}

#[tokio::test]
async fn a_cancel_answers_open_questions_first() {
    let (_client, mut session, mut agent) = with_session(options()).await;
    let canceller = session.canceller();
    assert_eq!(canceller.cancel(), Err(Error::Idle));
    let mut turn = session.prompt("a").unwrap();
    let prompt = agent.expect("session/prompt").await;
    agent.ask(0).await;
    let request = question(&mut turn).await;
    canceller.cancel().unwrap();
    assert_eq!(outcome(&mut agent, 0).await["outcome"], "cancelled");
    assert_eq!(agent.expect("session/cancel").await["params"], json!({ "sessionId": "s" }));
    let refused = request.choose(PermissionOptionKind::AllowOnce);
    assert_eq!(refused, Err(Error::NotOpen));
    // One that was on its way is answered the same.
    agent.ask(1).await;
    assert_eq!(outcome(&mut agent, 1).await["outcome"], "cancelled");
    agent.say("*Conversation interrupted*").await;
    agent.answer(&prompt, json!({ "stopReason": "cancelled", "usage": null })).await;
    assert_eq!(text(&mut turn).await, "*Conversation interrupted*");
    assert_eq!(turn.finish(LIMIT).await.unwrap().stop, Stop::Cancelled);
    // The session is usable, and its questions are asked again.
    let mut turn = session.prompt("b").unwrap();
    agent.expect("session/prompt").await;
    agent.ask(2).await;
    question(&mut turn).await.choose(PermissionOptionKind::AllowAlways).unwrap();
    assert_eq!(outcome(&mut agent, 2).await["optionId"], "accept_execpolicy_amendment");
}

#[tokio::test]
async fn a_question_that_was_not_read_is_answered_when_the_turn_ends() {
    let (_client, mut session, mut agent) = with_session(options()).await;
    session.prompt("a").unwrap();
    let prompt = agent.expect("session/prompt").await;
    agent.ask(0).await;
    agent.answer(&prompt, end_turn()).await;
    assert_eq!(outcome(&mut agent, 0).await["outcome"], "cancelled");
    // What was left of that turn does not stand in the way of the next.
    assert!(session.turn().is_some());
    session.prompt("b").unwrap();
    agent.expect("session/prompt").await;
}

#[tokio::test]
async fn a_failed_prompt_ends_the_turn_and_not_the_session() {
    let (_client, mut session, mut agent) = with_session(options()).await;
    let turn = session.prompt("a").unwrap();
    let request = agent.expect("session/prompt").await;
    let message = "Internal error: API Error: 400 …";
    agent.refuse(&request, json!({ "code": -32603, "message": message })).await;
    let Error::Agent { source, .. } = turn.finish(LIMIT).await.unwrap_err() else { panic!("not the agent's error") };
    assert_eq!(source.message, message);
    let turn = session.prompt("b").unwrap();
    let request = agent.expect("session/prompt").await;
    agent.answer(&request, json!({ "stop": 1 })).await;
    assert!(matches!(turn.finish(LIMIT).await, Err(Error::BadAnswer { .. })));
    session.prompt("c").unwrap();
    agent.expect("session/prompt").await;
}

#[tokio::test]
async fn death_in_a_turn_ends_it_after_what_was_said() {
    let (client, mut session, mut agent) = with_session(options()).await;
    let mut turn = session.prompt("a").unwrap();
    agent.expect("session/prompt").await;
    agent.say("last words").await;
    agent.ask(0).await;
    let input = agent.die();
    assert_eq!(text(&mut turn).await, "last words");
    let request = question(&mut turn).await;
    assert_eq!(reason(turn.next(LIMIT).await.unwrap_err()), Closed::AgentEnded);
    assert!(request.choose(PermissionOptionKind::AllowOnce).is_err());
    assert_eq!(client.closed().await, Closed::AgentEnded);
    assert_eq!(reason(session.prompt("b").unwrap_err()), Closed::AgentEnded);
    assert_eq!(reason(client.new_session("/p", LIMIT).await.unwrap_err()), Closed::AgentEnded);
    drop(input);
}

#[tokio::test]
async fn death_while_a_waiter_waits_wakes_it() {
    let (client, mut session, mut agent) = with_session(options()).await;
    let mut turn = session.prompt("a").unwrap();
    agent.expect("session/prompt").await;
    let (turned, opened, ()) = tokio::join!(turn.next(LIMIT), client.new_session("/p", LIMIT), async {
        agent.expect("session/new").await;
        drop(agent);
    });
    assert_eq!(reason(turned.unwrap_err()), Closed::AgentEnded);
    assert_eq!(reason(opened.unwrap_err()), Closed::AgentEnded);
}

#[tokio::test]
async fn a_deadline_leaves_the_turn_in_flight() {
    let (_client, mut session, mut agent) = with_session(options()).await;
    let mut turn = session.prompt("a").unwrap();
    let request = agent.expect("session/prompt").await;
    let limit = Duration::from_millis(1);
    let operation = "session/prompt";
    assert_eq!(turn.next(limit).await.unwrap_err(), Error::Deadline { operation, limit });
    turn.cancel().unwrap();
    agent.expect("session/cancel").await;
    agent.answer(&request, json!({ "stopReason": "cancelled" })).await;
    assert_eq!(turn.finish(LIMIT).await.unwrap().stop, Stop::Cancelled);
}

#[tokio::test]
async fn what_nobody_reads_is_bounded() {
    let mut options = options();
    options.max_queue = 4096;
    let (_client, mut session, mut agent) = with_session(options).await;
    session.prompt("a").unwrap();
    let request = agent.expect("session/prompt").await;
    for _ in 0..100 {
        agent.say(&"x".repeat(500)).await;
    }
    agent.answer(&request, end_turn()).await;
    // The next request is answered after all of these were read.
    agent.ask(0).await;
    outcome(&mut agent, 0).await;
    let mut turn = session.turn().unwrap();
    let Event::Update(Update::Lost(lost)) = turn.next(LIMIT).await.unwrap() else { panic!("nothing is lost") };
    let mut kept = 0;
    while let Event::Update(_) = turn.next(LIMIT).await.unwrap() {
        kept += 1;
    }
    assert!(kept > 0 && lost + kept == 100, "{lost} lost, {kept} kept");
}
