//! Messages for tests.

use domain::base::iana::Class;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::AllRecordData;

/// A query as a resolver library sends it.
pub(crate) fn query(name: &str, rtype: Rtype) -> Vec<u8> {
    class_query(name, rtype, Class::IN)
}

pub(crate) fn class_query(name: &str, rtype: Rtype, class: Class) -> Vec<u8> {
    let name: Name<Vec<u8>> = name.parse().unwrap();
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name, rtype, class)).unwrap();
    let mut builder = builder.additional();
    builder
        .opt(|opt| {
            opt.set_udp_payload_size(4096);
            Ok(())
        })
        .unwrap();
    builder.finish()
}

/// Owner, TTL and data of each answer record, as text.
pub(crate) fn answers(response: &[u8]) -> Vec<(String, u32, String)> {
    let message = Message::from_slice(response).unwrap();
    let records = message.answer().unwrap().limit_to::<AllRecordData<_, _>>();
    records
        .map(|record| {
            let record = record.unwrap();
            assert_eq!(record.class(), Class::IN);
            (
                record.owner().to_string(),
                record.ttl().as_secs(),
                record.data().to_string(),
            )
        })
        .collect()
}
