//! The configuration socket that all user-space WireGuard programs offer ("cross-platform user-space interface").

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// How long the program may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than an answer to `set` ever has.
const MAX_ANSWER: u64 = 4096;

/// One end of a tunnel between two peers.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Own static key.
    pub(crate) private_key: [u8; 32],
    /// Own UDP port.
    pub(crate) listen_port: u16,
    /// The other end's static key.
    pub(crate) peer: [u8; 32],
    /// Where the other end listens.
    pub(crate) endpoint: SocketAddr,
    /// What is behind the other end, as CIDR.
    pub(crate) allowed_ip: String,
}

impl Settings {
    /// Applies the settings through the socket of a running program. `process` is its id: the socket lies in that
    /// process's own `/run`.
    pub(crate) fn apply(&self, process: u32, device: &str) -> Result<()> {
        let path = format!("/proc/{process}/root/run/wireguard/{device}.sock");
        let mut stream =
            UnixStream::connect(&path).with_context(|| format!("cannot connect to {path}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(self.request().as_bytes())?;
        let answer = read_answer(stream)?;
        ensure!(
            answer.lines().any(|line| line == "errno=0"),
            "the program refused its configuration: {}",
            answer.trim()
        );
        Ok(())
    }

    fn request(&self) -> String {
        let Self {
            listen_port,
            endpoint,
            allowed_ip,
            ..
        } = self;
        let (private_key, peer) = (hex(&self.private_key), hex(&self.peer));
        format!(
            "set=1\nprivate_key={private_key}\nlisten_port={listen_port}\npublic_key={peer}\n\
             endpoint={endpoint}\nallowed_ip={allowed_ip}\n\n"
        )
    }
}

/// Reads up to the empty line that ends an answer; the connection may stay open.
fn read_answer(stream: UnixStream) -> Result<String> {
    let mut stream = BufReader::new(stream.take(MAX_ANSWER));
    let mut answer = String::new();
    while !answer.ends_with("\n\n") {
        let read = stream
            .read_line(&mut answer)
            .context("the program does not answer on its configuration socket")?;
        if read == 0 {
            break;
        }
    }
    Ok(answer)
}

fn hex(key: &[u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            private_key: [0x0a; 32],
            listen_port: 51820,
            peer: [0xf1; 32],
            endpoint: "203.0.113.3:51820".parse().unwrap(),
            allowed_ip: "10.99.0.2/32".to_owned(),
        }
    }

    #[test]
    fn request_names_the_peer_before_its_settings() {
        let expected = format!(
            "set=1\nprivate_key={}\nlisten_port=51820\npublic_key={}\nendpoint=203.0.113.3:51820\n\
             allowed_ip=10.99.0.2/32\n\n",
            "0a".repeat(32),
            "f1".repeat(32),
        );
        assert_eq!(settings().request(), expected);
    }

    #[test]
    fn an_answer_ends_at_the_empty_line() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"errno=0\n\nmore").unwrap();
        // `theirs` stays open: only the empty line can end the read.
        assert_eq!(read_answer(ours).unwrap(), "errno=0\n\n");
    }
}
