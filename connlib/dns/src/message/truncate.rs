//! Responses that are too long for one packet (RFC 1035 §4.2.1, RFC 2181 §9).

use connlib_cover::cover;
use domain::base::{Message, ParsedName, Question};
use ip_packet::MAX_UDP_PAYLOAD;

/// Longest DNS message in a UDP packet made here, in bytes: it fits the TUN device whatever the IP header.
///
/// The buffer size that the asker announced with EDNS is not consulted, since nothing larger gets through.
pub const MAX_UDP_RESPONSE: usize = MAX_UDP_PAYLOAD;

/// Bytes of the message header.
const HEADER_LEN: usize = 12;

/// The response as it fits into a UDP packet: a longer one loses everything behind the question and says so (TC).
pub fn truncate_for_udp(response: Vec<u8>) -> Vec<u8> {
    if response.len() <= MAX_UDP_RESPONSE {
        return response;
    }
    cover!("dns/truncated");
    let end = end_of_questions(&response).filter(|end| *end <= MAX_UDP_RESPONSE);
    let mut cut = response[..end.unwrap_or(HEADER_LEN)].to_vec();
    // TC.
    cut[2] |= 0b10;
    // Counts of answers, authorities and additional records.
    cut[6..HEADER_LEN].fill(0);
    if !asks_the_same(&cut, &response) {
        cut.truncate(HEADER_LEN);
        cut[4..6].fill(0);
    }
    cut
}

/// Whether the question is intact and still the same. A name may consist of labels that lie in the header or behind the
/// question: in what has changed or gone.
fn asks_the_same(cut: &[u8], response: &[u8]) -> bool {
    questions(cut).is_some_and(|asked| Some(asked) == questions(response))
}

fn questions(message: &[u8]) -> Option<Vec<Question<ParsedName<&[u8]>>>> {
    let message = Message::from_slice(message).ok()?;
    message.question().collect::<Result<_, _>>().ok()
}

fn end_of_questions(response: &[u8]) -> Option<usize> {
    let message = Message::from_slice(response).ok()?;
    let mut questions = message.question();
    for question in questions.by_ref() {
        question.ok()?;
    }
    Some(questions.pos())
}

#[cfg(test)]
mod tests {
    use super::super::testing::query;
    use super::*;
    use domain::base::Rtype;
    use proptest::prelude::*;

    fn response(len: usize) -> Vec<u8> {
        let mut message = query("example.com", Rtype::A);
        message.truncate(29);
        message[2] |= 0x80;
        message[7] = 9;
        message[9] = 8;
        message[11] = 7;
        message.resize(len, 0xaa);
        message
    }

    #[test]
    fn tunnel_26_long_response_is_cut_behind_the_question() {
        let cut = truncate_for_udp(response(4096));
        let mut expected = response(29);
        expected[2] |= 0b10;
        expected[6..12].fill(0);
        assert_eq!(cut, expected);
        let message = Message::from_slice(&cut).unwrap();
        assert!(message.header().tc());
        assert_eq!(
            (
                message.header_counts().qdcount(),
                message.header_counts().arcount()
            ),
            (1, 0)
        );
    }

    #[test]
    fn tunnel_26_longest_response_that_fits_is_left_alone() {
        assert_eq!(MAX_UDP_RESPONSE, 1212);
        assert_eq!(truncate_for_udp(response(1212)), response(1212));
        assert_eq!(truncate_for_udp(response(1213)).len(), 29);
    }

    #[test]
    fn broken_question_goes_too() {
        let mut broken = response(2000);
        broken[12] = 0xbf;
        let cut = truncate_for_udp(broken);
        assert_eq!(cut.len(), 12);
        assert_eq!(cut[4..], [0; 8]);
        // So many questions that they alone are too long.
        let mut many = vec![0; 12];
        many[4..6].copy_from_slice(&400u16.to_be_bytes());
        many.extend([0, 0, 1, 0, 1].repeat(400));
        assert_eq!(truncate_for_udp(many).len(), 12);
    }

    #[test]
    fn question_that_points_behind_itself_goes_too() {
        // Its name points into the header, where a label begins that ends far behind it.
        let mut pointing = vec![0; 2000];
        (pointing[2], pointing[5]) = (63, 1);
        pointing[12..18].copy_from_slice(&[0xc0, 2, 0, 1, 0, 1]);
        assert_eq!(end_of_questions(&pointing), Some(18));
        let cut = truncate_for_udp(pointing);
        assert_eq!((cut.len(), cut[5]), (12, 0));
    }

    #[test]
    fn question_that_points_into_the_header_goes_too() {
        // Its name begins with the label that the counts of answers and authorities look like.
        let mut pointing = vec![0; 2000];
        (pointing[5], pointing[7], pointing[8], pointing[9]) = (1, 1, b'a', 0);
        pointing[12..18].copy_from_slice(&[0xc0, 7, 0, 1, 0, 1]);
        assert_eq!(end_of_questions(&pointing), Some(18));
        let cut = truncate_for_udp(pointing.clone());
        assert_eq!((cut.len(), cut[5]), (12, 0));
        // One that is no label any more when the answer has become a truncated one.
        (pointing[2], pointing[13]) = (61, 2);
        pointing[2 + 1 + 61] = 0;
        let cut = truncate_for_udp(pointing);
        assert_eq!((cut.len(), cut[5]), (12, 0));
    }

    proptest! {
        #[test]
        fn never_too_long_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 1213..2000)) {
            let cut = truncate_for_udp(bytes);
            prop_assert!(cut.len() <= MAX_UDP_RESPONSE && cut.len() >= 12);
            prop_assert_eq!(&cut[6..12], &[0; 6]);
        }
    }
}
