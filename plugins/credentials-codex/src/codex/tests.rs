use pcoder_sdk::testing::FakeHost;

use super::*;

fn host() -> FakeHost {
    let host = FakeHost::new();
    host.secret("OPENAI_API_KEY", "placeholder-1");
    host.secret("CODEX_AUTH_JSON", "placeholder-2");
    host
}

#[test]
fn a_key_becomes_the_file_that_codex_reads() {
    let host = host();
    CodexCredentials.install(host.credentials(), "api-key").unwrap();
    assert_eq!(
        host.log_of_calls(),
        [
            "secrets.get OPENAI_API_KEY",
            "target.create-directory ~/.codex mode 700",
            "target.write-file-atomic ~/.codex/auth.json mode 600 parents 55 bytes",
            "target.file-exists ~/.codex/auth.json",
        ]
    );
    let content = String::from_utf8(host.file(PATH).unwrap()).unwrap();
    assert_eq!(content, r#"{"auth_mode":"apikey","OPENAI_API_KEY":"placeholder-1"}"#);
    assert_eq!((host.mode(PATH), host.mode("~/.codex")), (Some(0o600), Some(0o700)));
}

#[test]
fn a_document_goes_as_it_is() {
    let host = host();
    CodexCredentials.install(host.credentials(), "auth-file").unwrap();
    assert_eq!(host.file(PATH).as_deref(), Some(b"placeholder-2".as_slice()));
}

#[test]
fn the_profiles_say_what_the_manifest_asks_for() {
    let manifest = include_str!("../../plugin.toml");
    for profile in CodexCredentials.profiles() {
        assert_eq!(profile.paths, [PATH]);
        for secret in profile.secrets {
            assert!(manifest.contains(&format!("name = \"{secret}\"")), "{secret}");
        }
    }
}
