//! What both dialects share: keys, records, the end.

use std::time::Duration;

use pcoder_model_server::{ModelServer, Options};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::http::{post, read, send, start};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_wrong_key_is_refused() {
    let mut options = Options::default();
    options.require_key = Some("sk-right".into());
    assert!(!format!("{options:?}").contains("sk-right"));
    let server = ModelServer::start(options).await.unwrap();
    for (path, header, status) in [
        ("/v1/messages", "x-api-key: sk-right\r\n", 200),
        ("/v1/messages", "authorization: Bearer sk-right\r\n", 200),
        ("/v1/messages", "x-api-key: sk-wrong\r\n", 401),
        ("/v1/messages", "x-api-key: sk-right\r\nauthorization: Bearer sk-wrong\r\n", 401),
        ("/v1/messages", "", 401),
        ("/v1/messages/count_tokens", "", 401),
        ("/v1/responses", "authorization: Bearer sk-right\r\n", 200),
        ("/v1/responses", "authorization: Bearer sk-wrong\r\n", 401),
    ] {
        let answer = read(send(&server, &format!("POST {path}"), header, "{}").await).await;
        assert_eq!(answer.status, status, "{path} {header}");
        if status == 401 {
            assert_eq!(answer.json()["error"]["type"], "authentication_error");
        }
    }
    let models = read(send(&server, "GET /v1/models", "", "").await).await;
    assert_eq!(models.status, 401);
    let requests = server.requests();
    assert!(requests[0].credentials.are("sk-right"));
    assert!(!format!("{requests:?}").contains("sk-"));
}

#[tokio::test]
async fn requests_are_remembered() {
    let server = start().await;
    let greeting = read(send(&server, "HEAD /", "", "").await).await;
    assert_eq!((greeting.status, greeting.body.as_str()), (200, ""));
    assert_eq!(read(send(&server, "GET /api/hello", "", "").await).await.status, 200);
    assert_eq!(read(send(&server, "GET /v1/models", "", "").await).await.json()["object"], "list");
    assert_eq!(read(send(&server, "GET /elsewhere", "", "").await).await.status, 404);
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let body = json!({ "model": "m", "tools": [{ "name": "Bash" }], "messages": messages });
    post(&server, "/v1/messages?beta=true", &body).await;
    assert!(server.wait_for_requests(5, LIMIT).await);
    let requests = server.requests();
    let targets: Vec<_> = requests.iter().map(|request| request.target.as_str()).collect();
    assert_eq!(targets, ["/", "/api/hello", "/v1/models", "/elsewhere", "/v1/messages?beta=true"]);
    let last = &requests[4];
    assert_eq!((last.model.as_str(), last.prompt.as_str(), last.results), ("m", "hi", 0));
    assert_eq!(last.tools, ["Bash"]);
    assert_eq!(last.body_bytes, body.to_string().len());
    assert!(!server.wait_for_requests(6, Duration::from_millis(1)).await);
}

#[tokio::test]
async fn two_servers_do_not_meet_and_a_taken_port_is_an_error() {
    let (one, two) = (start().await, start().await);
    assert_ne!(one.address(), two.address());
    assert!(one.address().ip().is_loopback());
    let mut options = Options::default();
    options.port = one.address().port();
    let error = ModelServer::start(options).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on 127.0.0.1:{}", one.address().port()));
}

async fn sleeping(server: &ModelServer) -> tokio::net::TcpStream {
    let messages = json!([{ "role": "user", "content": "@say a\n@sleep 3600\n@say b" }]);
    let body = json!({ "stream": true, "messages": messages }).to_string();
    let mut stream = send(server, "POST /v1/messages", "", &body).await;
    // Its first bytes are here, so it is in the middle of the script.
    stream.readable().await.unwrap();
    stream.read_u8().await.unwrap();
    stream
}

#[tokio::test]
async fn shutting_down_does_not_wait_for_a_script_that_sleeps() {
    let server = start().await;
    let mut stream = sleeping(&server).await;
    tokio::time::timeout(LIMIT, server.shutdown()).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap_or(0);
    assert!(!String::from_utf8(rest).unwrap().contains("message_stop"));
}

#[tokio::test]
async fn dropping_shuts_down() {
    let server = start().await;
    let address = server.address();
    let mut stream = sleeping(&server).await;
    drop(server);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await;
    ended.unwrap().unwrap_or(0);
    let gone = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap();
}
