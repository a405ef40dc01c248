//! Ports of a guest on this host's loopback. QEMU picks the port on the host, so that nobody else can have it in between,
//! and tells it in words for people.

use pcoder_sdk::{Error, Result, code};

use crate::qmp::Qmp;

/// The guest's SSH server.
pub(crate) const SSH: u16 = 22;

/// The address of a port on this host.
pub(crate) fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Where a port of the guest is on this host, in `info usernet`'s words:
/// `TCP[HOST_FORWARD]  17       127.0.0.1 38563       10.0.2.15  8123     0     0`.
fn forwarded(words: &str, guest: u16) -> Option<u16> {
    words.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ["TCP[HOST_FORWARD]", _, "127.0.0.1", from, _, to, ..] = fields[..] else { return None };
        (to.parse() == Ok(guest)).then(|| from.parse().ok())?
    })
}

/// Where a port of the guest is on this host, if anywhere.
pub(crate) fn find(qmp: &mut Qmp<'_>, guest: u16) -> Result<Option<u16>> {
    Ok(forwarded(&qmp.monitor("info usernet")?, guest))
}

/// Makes a port of the guest one of this host's, unless it is already.
pub(crate) fn forward(qmp: &mut Qmp<'_>, operation: &str, guest: u16) -> Result<u16> {
    if let Some(port) = find(qmp, guest)? {
        return Ok(port);
    }
    let said = qmp.monitor(&format!("hostfwd_add net tcp:127.0.0.1:0-:{guest}"))?;
    find(qmp, guest)?.ok_or_else(|| {
        let said = pcoder_sdk::text::tail(said.as_bytes(), 1, 200);
        Error::new(code::PROCESS, operation, format!("QEMU did not forward port {guest}: {said}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of QEMU 10.0.2.
    const WORDS: &str = "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
        TCP[HOST_FORWARD]  17       127.0.0.1 38563       10.0.2.15  8123     0     0\r\n  \
        TCP[HOST_FORWARD]   9       127.0.0.1 40409       10.0.2.15    22     0     0\r\n  \
        TCP[ESTABLISHED]   21       127.0.0.1 40410       10.0.2.15    80     0     0\r\n  \
        UDP[236 sec]       22       10.0.2.15 53        10.0.2.3    53     0     0\r\n";

    #[test]
    fn a_port_is_found_in_qemus_words() {
        assert_eq!(forwarded(WORDS, 22), Some(40409));
        assert_eq!(forwarded(WORDS, 8123), Some(38563));
        for absent in [80, 53, 2] {
            assert_eq!(forwarded(WORDS, absent), None);
        }
        for odd in [
            "",
            "TCP[HOST_FORWARD]",
            "TCP[HOST_FORWARD] 9 127.0.0.1 99999 10.0.2.15 22",
            "TCP[HOST_FORWARD] 9 * 7 10.0.2.15 22",
        ] {
            assert_eq!(forwarded(odd, 22), None);
        }
    }
}
