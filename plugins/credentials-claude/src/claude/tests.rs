use pcoder_sdk::testing::FakeHost;

use super::*;

fn host() -> FakeHost {
    let host = FakeHost::new();
    host.secret("CLAUDE_ACCESS_TOKEN", "placeholder-1");
    host.secret("CLAUDE_CREDENTIALS_JSON", "placeholder-2");
    host
}

#[test]
fn a_token_becomes_the_file_that_claude_reads() {
    let host = host();
    ClaudeCredentials.install(host.credentials(), "oauth-token").unwrap();
    assert_eq!(
        host.log_of_calls(),
        [
            "secrets.get CLAUDE_ACCESS_TOKEN",
            "target.create-directory ~/.claude mode 700",
            "target.write-file-atomic ~/.claude/.credentials.json mode 600 parents 77 bytes",
            "target.file-exists ~/.claude/.credentials.json",
        ]
    );
    let content = String::from_utf8(host.file(PATH).unwrap()).unwrap();
    assert_eq!(content, r#"{"claudeAiOauth":{"accessToken":"placeholder-1","scopes":["user:inference"]}}"#);
    assert_eq!((host.mode(PATH), host.mode("~/.claude")), (Some(0o600), Some(0o700)));
}

#[test]
fn a_document_goes_as_it_is_and_again() {
    let host = host();
    ClaudeCredentials.install(host.credentials(), "credentials-file").unwrap();
    ClaudeCredentials.install(host.credentials(), "credentials-file").unwrap();
    assert_eq!(host.file(PATH).as_deref(), Some(b"placeholder-2".as_slice()));
}

#[test]
fn the_profiles_say_what_the_manifest_asks_for() {
    let manifest = include_str!("../../plugin.toml");
    for profile in ClaudeCredentials.profiles() {
        assert_eq!(profile.paths, [PATH]);
        for secret in profile.secrets {
            assert!(manifest.contains(&format!("name = \"{secret}\"")), "{secret}");
        }
    }
}
