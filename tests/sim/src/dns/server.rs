//! What name servers know and say, both those of the internet and those behind gateways.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::message::{Message, NAME_ERROR, NO_ERROR, Response, SERVER_FAILURE, type_number};
use crate::{
    topology::{DnsAnswer, NameSpec},
    transition::RecordType,
};

/// All names that exist.
#[derive(Debug, Clone, Default)]
pub struct Records(BTreeMap<String, NameSpec>);

impl Records {
    /// The names of a case.
    pub fn new(names: &[NameSpec]) -> Self {
        Self(
            names
                .iter()
                .map(|spec| (spec.name.clone(), spec.clone()))
                .collect(),
        )
    }

    /// Replaces a name's addresses.
    pub fn set(&mut self, name: &str, v4: &[Ipv4Addr], v6: &[Ipv6Addr]) {
        if let Some(spec) = self.0.get_mut(name) {
            v4.clone_into(&mut spec.v4);
            v6.clone_into(&mut spec.v6);
        }
    }

    /// All addresses of a name; empty if it does not exist.
    pub fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let Some(spec) = self.0.get(name) else {
            return Vec::new();
        };
        let v4 = spec.v4.iter().copied().map(IpAddr::V4);
        v4.chain(spec.v6.iter().copied().map(IpAddr::V6)).collect()
    }

    /// How a name is answered; names that do not exist are answered without records.
    pub fn manner(&self, name: &str) -> DnsAnswer {
        self.0.get(name).map(|spec| spec.answer).unwrap_or_default()
    }

    /// The response to a query; `None` is silence.
    pub fn respond(&self, query: &[u8]) -> Option<Vec<u8>> {
        let (name, record_type) = Message::parse(query)?.question;
        let code = match self.manner(&name) {
            DnsAnswer::Records => NO_ERROR,
            DnsAnswer::NameError => NAME_ERROR,
            DnsAnswer::ServerFailure | DnsAnswer::Unreachable => SERVER_FAILURE,
            DnsAnswer::Silence => return None,
        };
        let mut response = Response::to(query, code)?;
        if let (NO_ERROR, Some(spec)) = (code, self.0.get(&name)) {
            add_records(&mut response, spec, record_type);
        }
        Some(response.finish())
    }
}

fn add_records(response: &mut Response, spec: &NameSpec, record_type: u16) {
    if record_type == type_number(RecordType::A) {
        for ip in &spec.v4 {
            response.push(record_type, &ip.octets());
        }
    }
    if record_type == type_number(RecordType::Aaaa) {
        for ip in &spec.v6 {
            response.push(record_type, &ip.octets());
        }
    }
    if record_type == type_number(RecordType::Txt) {
        for _ in 0..spec.txt {
            response.push(record_type, &[&[255][..], &[b'x'; 255]].concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::message::query;

    #[test]
    fn answers_by_manner() {
        let spec = |name: &str, answer| NameSpec {
            name: name.to_owned(),
            v4: vec![[10, 0, 0, 1].into()],
            answer,
            ..NameSpec::default()
        };
        let records = Records::new(&[
            spec("a.example", DnsAnswer::Records),
            spec("b.example", DnsAnswer::NameError),
            spec("c.example", DnsAnswer::Silence),
        ]);
        let ask = |name: &str| {
            let response = records.respond(&query(1, name, 1));
            response.and_then(|bytes| Message::parse(&bytes))
        };
        assert_eq!(ask("a.example").unwrap().addresses().len(), 1);
        assert_eq!(ask("b.example").unwrap().code, NAME_ERROR);
        assert_eq!(ask("c.example"), None);
        assert_eq!(ask("d.example").unwrap().code, NO_ERROR);
    }
}
