//! What arbitrary bytes must not break: also the body of the fuzz target `radius_packet`.

use std::net::SocketAddr;
use std::time::Instant;

use radius::wire::{self, HEADER_BYTES, Packet};
use radius::{Accounting, Client, Clients, Config, Fate, Limits, Output, Secret, UserLocation};
use vocabulary::{SessionReport, Timestamp};

const SECRET: &[u8] = b"k7Gq-2mfPz-x81Lk";

/// The bytes as a datagram, as attributes that a client has signed, and as a location.
pub(crate) fn packet_survives(bytes: &[u8]) {
    datagram_survives(bytes);
    let mut signed = vec![wire::ACCOUNTING_REQUEST, 7, 0, 0];
    signed.resize(HEADER_BYTES, 0);
    signed.extend_from_slice(bytes);
    wire::close_packet(&mut signed);
    wire::sign_request(&mut signed, SECRET);
    datagram_survives(&signed);
    if let Ok(location) = UserLocation::parse(bytes) {
        assert!(location.tower(None).area.is_none_or(|area| area < 1 << 24));
        // A network without area and cell is written as one with cell 0.
        let again = UserLocation::parse(&location.encode());
        assert!(again.is_ok_and(|again| again.tower(None).plmn == location.tower(None).plmn));
    }
}

/// A datagram has one fate, and is answered exactly when it is stored or asks for no more.
fn datagram_survives(datagram: &[u8]) {
    if let Ok(packet) = Packet::parse(datagram) {
        let length: usize = packet.attributes().map(|one| 2 + one.value.len()).sum();
        assert_eq!(HEADER_BYTES + length, packet.bytes().len());
    }
    let mut accounting = server();
    let (now, at) = (Instant::now(), Timestamp::from_millis(1_700_000_000_000));
    let from: SocketAddr = "10.1.0.1:2000".parse().expect("an address");
    accounting.handle_datagram(now, at, from, datagram);
    let mut reports = Vec::new();
    while let Some(output) = accounting.poll_output() {
        if let Output::Report { ticket, report } = output {
            let read = SessionReport::decode(&report.encode());
            assert_eq!(read.as_ref(), Ok(&*report));
            reports.push(ticket);
        }
    }
    assert!(reports.len() <= 1);
    for ticket in reports {
        accounting.settled(now, ticket, true);
        assert!(matches!(accounting.poll_output(), Some(Output::Transmit { .. })));
        assert_eq!(accounting.counters().of(Fate::Stored), 1);
    }
    let counters = accounting.counters();
    assert_eq!((counters.received, counters.accounted()), (1, 1));
}

fn server() -> Accounting {
    let secret = Secret::new(SECRET, false).expect("a good secret");
    let client = Client::new("pgw", "10.1.0.0/24", secret).expect("a client");
    let clients = Clients::new(vec![client]).expect("one client");
    let limits = Limits::default();
    Accounting::new(Config { feed: "radius".to_owned(), clients, limits }, 7)
}
