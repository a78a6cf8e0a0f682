//! Responses that are too long for one packet (RFC 1035 §4.2.1, RFC 2181 §9).

use domain::base::Message;
use ip_packet::MAX_UDP_PAYLOAD;

/// Longest DNS message in a UDP packet made here, in bytes: it fits the TUN device whatever the IP header.
///
/// The buffer size that the asker announced with EDNS is not consulted, since nothing larger gets through.
pub const MAX_UDP_RESPONSE: usize = MAX_UDP_PAYLOAD;

/// Bytes of the message header.
const HEADER_LEN: usize = 12;

/// The response as it fits into a UDP packet: a longer one loses everything behind the question and says so (TC).
pub fn truncate_for_udp(mut response: Vec<u8>) -> Vec<u8> {
    if response.len() <= MAX_UDP_RESPONSE {
        return response;
    }
    let end = question_end(&response);
    response.truncate(end.unwrap_or(HEADER_LEN));
    // TC.
    response[2] |= 0b10;
    // Counts of answers, authorities and additional records; of questions too when they had to go.
    response[6..HEADER_LEN].fill(0);
    if end.is_none() {
        response[4..6].fill(0);
    }
    response
}

/// Where the question section ends, if it is intact and itself short enough.
fn question_end(response: &[u8]) -> Option<usize> {
    let message = Message::from_slice(response).ok()?;
    let mut questions = message.question();
    for question in questions.by_ref() {
        question.ok()?;
    }
    let end = questions.pos();
    (end <= MAX_UDP_RESPONSE).then_some(end)
}
