//! A name server of the public internet, and questions to a name server (RFC 1035), over UDP and TCP.
//!
//! Hand-made, so that the product's own DNS code is not its own witness.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

/// Address of the name server.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
/// What it answers to every question for an IPv4 address, except below [`MISSING`].
pub const ANSWER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
/// No name below this one exists.
pub const MISSING: &str = "missing.example";

const PORT: u16 = 53;
const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
const CLASS_IN: [u8; 2] = [0, 1];
const NXDOMAIN: u8 = 3;
/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a question is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// Over a connection.
    Tcp,
}

/// Answers questions until the process ends.
///
/// # Errors
///
/// If the address cannot be bound.
pub fn serve(address: &str) -> Result<()> {
    let address: IpAddr = address.parse().context("not an address")?;
    let udp = UdpSocket::bind((address, PORT))?;
    let tcp = TcpListener::bind((address, PORT))?;
    println!("listening");
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            // Whoever leaves half-way gets no answer.
            thread::spawn(move || answer_stream(stream));
        }
    });
    let mut buffer = [0; 512];
    loop {
        let (length, from) = udp.recv_from(&mut buffer)?;
        if let Some(answer) = answer(&buffer[..length]) {
            println!("asked over UDP by {from}");
            udp.send_to(&answer, from)?;
        }
    }
}

fn answer_stream(mut stream: TcpStream) -> Result<()> {
    println!("asked over TCP by {}", stream.peer_addr()?);
    loop {
        let query = read_framed(&mut stream)?;
        let answer = answer(&query).context("not a question")?;
        write_framed(&mut stream, &answer)?;
    }
}

/// Answer to a query with one question.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let question_end = HEADER + name_length(query.get(HEADER..)?)? + 4;
    let question = query.get(HEADER..question_end)?;
    let is_missing = labels(question).ends_with(MISSING);
    let has_address = !is_missing && question[question.len() - 4..][..2] == TYPE_A;

    let mut answer = query[..2].to_vec();
    // QR, RD; RA and the response code; one question, at most one answer.
    answer.extend([0x81, 0x80 | if is_missing { NXDOMAIN } else { 0 }]);
    answer.extend([0, 1, 0, u8::from(has_address), 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    if has_address {
        // The name is that of the question; 60 seconds; four bytes.
        answer.extend([0xc0, 0x0c]);
        answer.extend(TYPE_A);
        answer.extend(CLASS_IN);
        answer.extend([0, 0, 0, 60, 0, 4]);
        answer.extend(ANSWER.octets());
    }
    Some(answer)
}

/// Length of an uncompressed name with its end.
fn name_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
}

fn labels(question: &[u8]) -> String {
    let mut name = Vec::new();
    let mut rest = question;
    while let Some((length, tail)) = rest.split_first()
        && let Some((label, tail)) = tail.split_at_checked(usize::from(*length))
        && !label.is_empty()
    {
        name.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        rest = tail;
    }
    name.join(".")
}

/// Asks a server for IPv4 addresses of a name, in the calling thread's network namespace.
///
/// # Errors
///
/// If there is no usable answer.
pub fn ask(server: IpAddr, name: &str, transport: Transport) -> Result<Vec<Ipv4Addr>> {
    let server = SocketAddr::new(server, PORT);
    let query = query(name);
    let answer = match transport {
        Transport::Udp => {
            let any: IpAddr = match server {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(&query)?;
            let mut buffer = vec![0; 1500];
            let length = socket.recv(&mut buffer).context("no answer over UDP")?;
            buffer.truncate(length);
            buffer
        }
        Transport::Tcp => {
            let mut stream =
                TcpStream::connect_timeout(&server, PATIENCE).context("no connection over TCP")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write_framed(&mut stream, &query)?;
            read_framed(&mut stream).context("no answer over TCP")?
        }
    };
    addresses(&query, &answer)
}

fn query(name: &str) -> Vec<u8> {
    // RD; one question. The id tells nothing, each question has its own socket.
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend(TYPE_A);
    query.extend(CLASS_IN);
    query
}

fn addresses(query: &[u8], answer: &[u8]) -> Result<Vec<Ipv4Addr>> {
    ensure!(answer.len() >= query.len(), "short answer");
    ensure!(answer[..2] == query[..2], "answer to another question");
    let code = answer[3] & 0xf;
    if code == NXDOMAIN {
        bail!("no such name");
    }
    ensure!(code == 0, "response code {code}");
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    let mut rest = &answer[query.len()..];
    let mut found = Vec::new();
    for _ in 0..count {
        let is_pointer = rest.first().is_some_and(|byte| byte & 0xc0 == 0xc0);
        let name = if is_pointer {
            2
        } else {
            name_length(rest).context("malformed name")?
        };
        let fields = rest.get(name..name + 10).context("short record")?;
        let length = usize::from(u16::from_be_bytes([fields[8], fields[9]]));
        let data = rest
            .get(name + 10..name + 10 + length)
            .context("short record")?;
        if let (true, Ok(octets)) = (fields[..2] == TYPE_A, <[u8; 4]>::try_from(data)) {
            found.push(Ipv4Addr::from(octets));
        }
        rest = &rest[name + 10 + length..];
    }
    Ok(found)
}

fn read_framed(stream: &mut impl Read) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_framed(stream: &mut impl Write, message: &[u8]) -> Result<()> {
    let length = u16::try_from(message.len()).context("long message")?;
    stream.write_all(&[length.to_be_bytes().as_slice(), message].concat())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_questions_understand_each_other() {
        let found = query("www.public.example");
        let missing = query("host.missing.example");

        let answered = addresses(&found, &answer(&found).unwrap());
        assert_eq!(answered.unwrap(), [ANSWER]);
        let answered = addresses(&missing, &answer(&missing).unwrap());
        assert_eq!(answered.unwrap_err().to_string(), "no such name");
        assert!(answer(&found[..20]).is_none());
    }
}
