//! A real OpenSSH server on 127.0.0.1, run as whoever runs the tests.
//!
//! Each connection gets an `sshd -i` of its own, which ends with it: there is no daemon to stop, and how many came and
//! whether they went is seen from outside.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};

/// The keys of the server and of its user, made once.
struct Keys {
    folder: tempfile::TempDir,
}

impl Keys {
    fn get() -> &'static Self {
        static KEYS: OnceLock<Keys> = OnceLock::new();
        KEYS.get_or_init(|| {
            let keys = Self { folder: tempfile::tempdir().expect("a folder") };
            for (name, kind) in [("host", "ed25519"), ("user", "ed25519"), ("other", "ed25519"), ("ecdsa", "ecdsa")] {
                let made = Command::new("ssh-keygen")
                    .args(["-q", "-t", kind, "-N", "", "-C", "test", "-f"])
                    .arg(keys.path(name))
                    .status()
                    .expect("OpenSSH's server and tools; `cargo xtask test` installs them");
                assert!(made.success(), "ssh-keygen failed");
            }
            let folder = keys.folder.path().display();
            // Not this user's home: what his shell reads there may print something.
            let config = format!(
                "HostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n\
                 PasswordAuthentication no\nPermitRootLogin yes\nPidFile none\nSubsystem sftp internal-sftp\n\
                 SetEnv HOME={folder}\n"
            );
            std::fs::write(keys.path("config"), config).expect("a file");
            // As root it insists on its folder for privilege separation, which Debian makes when the service starts.
            if rustix::process::getuid().is_root() {
                std::fs::create_dir_all("/run/sshd").expect("a folder");
            }
            keys
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a key").trim_end().to_owned()
    }
}

/// A key of the tests: `user` and `other` are private, `host.pub`, `other.pub` and `ecdsa.pub` public.
pub fn key(name: &str) -> String {
    Keys::get().text(name)
}

/// Who runs the tests.
pub fn user() -> String {
    let name = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8_lossy(&name.stdout).trim().to_owned()
}

/// The server. Its thread ends with the process.
pub struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    ended: Mutex<Receiver<()>>,
}

impl Server {
    pub fn start() -> Self {
        let config = Keys::get().path("config");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (sender, ended) = channel();
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                serve(stream.into(), &config, sender.clone());
            }
        });
        Self { port, connections, ended: Mutex::new(ended) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How a grant names it.
    pub fn url(&self) -> String {
        format!("ssh://127.0.0.1:{}", self.port)
    }

    /// How a hostile plugin is told of it: host, port, user, credential, host key.
    pub fn endpoint(&self, credential: &str) -> [String; 5] {
        ["127.0.0.1".to_owned(), self.port.to_string(), user(), credential.to_owned(), key("host.pub")]
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether a connection ends, on the server's side too.
    pub fn was_closed(&self) -> bool {
        self.ended.lock().expect("its end").recv_timeout(std::time::Duration::from_secs(20)).is_ok()
    }
}

fn serve(stream: OwnedFd, config: &Path, ended: Sender<()>) {
    let daemon =
        ["/usr/sbin/sshd", "/usr/libexec/sshd", "/usr/local/sbin/sshd"].into_iter().find(|it| Path::new(it).exists());
    let output = stream.try_clone().expect("a handle");
    let mut child = Command::new(daemon.expect("OpenSSH's server; `cargo xtask test` installs it"))
        .args(["-i", "-e", "-f"])
        .arg(config)
        .stdin(Stdio::from(stream))
        .stdout(Stdio::from(output))
        .stderr(Stdio::null())
        .spawn()
        .expect("sshd");
    std::thread::spawn(move || {
        let _ = child.wait();
        let _ = ended.send(());
    });
}
