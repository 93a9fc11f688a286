//! The accounting server without a socket: what it takes, what it refuses, and when it answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use radius::wire::{self, HEADER_BYTES};
use radius::{
    Accounting, AccountingRequest, Client, Clients, Config, Fate, InvalidResponse, Limits, Output,
    Secret, StatusType, Ticket, UserLocation, verify_response,
};
use vocabulary::{Octets, Plmn, RadioAccess, SessionChange, SessionReport, Timestamp};

fn secret() -> Secret {
    Secret::new(b"k7Gq-2mfPz-x81Lk", false).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1_000)
}

fn from() -> SocketAddr {
    "10.1.0.1:2000".parse().unwrap()
}

struct World {
    accounting: Accounting,
    begun: Instant,
}

impl World {
    fn new() -> Self {
        Self::with(|client| client, Limits::default())
    }

    fn with(client: impl FnOnce(Client) -> Client, limits: Limits) -> Self {
        let client = client(Client::new("pgw", "10.1.0.0/24", secret()).unwrap());
        let clients = Clients::new(vec![client]).unwrap();
        let config = Config { feed: "radius".to_owned(), clients, limits };
        Self { accounting: Accounting::new(config, 7), begun: Instant::now() }
    }

    /// Takes a datagram after so many seconds.
    fn take(&mut self, seconds: u64, datagram: &[u8]) -> Vec<Output> {
        self.take_from(from(), seconds, datagram)
    }

    fn take_from(&mut self, from: SocketAddr, seconds: u64, datagram: &[u8]) -> Vec<Output> {
        let now = self.begun + Duration::from_secs(seconds);
        let at = at(i64::try_from(seconds).unwrap());
        self.accounting.handle_datagram(now, at, from, datagram);
        self.outputs()
    }

    fn settle(&mut self, seconds: u64, ticket: Ticket, is_stored: bool) -> Vec<Output> {
        self.accounting.settled(self.begun + Duration::from_secs(seconds), ticket, is_stored);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.accounting.poll_output()).collect()
    }

    fn count(&self, fate: Fate) -> u64 {
        self.accounting.counters().of(fate)
    }
}

fn report(outputs: &[Output]) -> (Ticket, SessionReport) {
    let [Output::Report { ticket, report }] = outputs else { panic!("{outputs:?}") };
    (*ticket, (**report).clone())
}

fn response(outputs: &[Output]) -> &[u8] {
    let [Output::Transmit { to, bytes }] = outputs else { panic!("{outputs:?}") };
    assert_eq!(*to, from().into());
    bytes
}

fn start() -> AccountingRequest {
    AccountingRequest {
        ipv4: Some([100, 64, 0, 1].into()),
        imsi: Some("901405100002864".parse().unwrap()),
        happened_at: Some(at(0)),
        ..AccountingRequest::new(StatusType::Start, "s1")
    }
}

#[test]
fn all_that_is_told_is_reported() {
    let request = AccountingRequest {
        nas: Some("192.0.2.1".parse().unwrap()),
        nas_identifier: Some("pgw-1".to_owned()),
        ipv6_prefix: Some("2001:db8:0:7::".parse().unwrap()),
        msisdn: Some("491700000001".parse().unwrap()),
        apn: Some("iot.example".to_owned()),
        imei: Some("3520990017614823".parse().unwrap()),
        charging_id: Some(77),
        access: Some(RadioAccess::NbIot),
        location: Some(UserLocation::Lte {
            plmn: "262-01".parse().unwrap(),
            area: Some(30_003),
            cell: Some(1_360_641),
        }),
        octets: Some(Octets { up: 5 << 32 | 6, down: 7 }),
        duration_s: Some(60),
        end_cause: Some(2),
        delay_s: Some(3),
        has_message_authenticator: true,
        ..AccountingRequest { status: StatusType::Stop, ..start() }
    };
    let (_, report) = report(&World::new().take(5, &request.encode(1, &secret())));
    let mut expected = SessionReport::new("radius", SessionChange::Stop, "pgw/pgw-1", at(0));
    expected.session = "s1".to_owned();
    expected.ipv4 = request.ipv4;
    expected.ipv6_prefix = request.ipv6_prefix;
    expected.imsi = request.imsi;
    expected.msisdn = request.msisdn;
    expected.imei = request.imei;
    expected.apn = request.apn;
    expected.charging_id = request.charging_id;
    expected.access = request.access;
    expected.cell = request.location.map(|location| location.tower(request.access));
    expected.octets = request.octets;
    expected.duration_s = request.duration_s;
    expected.end_cause = Some("Lost-Carrier".to_owned());
    assert_eq!(report, expected);
}

#[test]
fn without_a_time_a_report_is_of_its_arrival_less_its_delay() {
    let request = AccountingRequest { happened_at: None, delay_s: Some(7), ..start() };
    let (_, report) = report(&World::new().take(10, &request.encode(1, &secret())));
    assert_eq!(report.happened_at, at(3));
    assert_eq!(report.server, "pgw/10.1.0.1", "a sender that does not name itself is its address");
}

#[test]
fn only_what_is_durable_is_answered_and_a_copy_changes_nothing() {
    let mut world = World::new();
    let mut request = start();
    request.proxy_states = vec![b"one".to_vec(), b"two".to_vec()];
    let packet = request.encode(9, &secret());
    let (ticket, _) = report(&world.take(0, &packet));
    assert!(world.take(1, &packet).is_empty(), "it is being stored");
    let settled = world.settle(2, ticket, true);
    let first = response(&settled);
    assert_eq!(verify_response(first, &packet, &secret()), Ok(()));
    let other = start().encode(8, &secret());
    let wrong = verify_response(first, &other, &secret());
    assert_eq!(wrong, Err(InvalidResponse::Identifier { found: 9, expected: 8 }));
    let states = wire::Packet::parse(first).unwrap();
    let states: Vec<&[u8]> = states.attributes().map(|state| state.value).collect();
    assert_eq!(states, [b"one", b"two"]);
    assert_eq!(response(&world.take(3, &packet)), first, "the answer was lost");
    // From another port it is the same.
    let elsewhere = "10.1.0.1:2001".parse().unwrap();
    assert!(matches!(world.take_from(elsewhere, 4, &packet)[..], [Output::Transmit { .. }]));
    assert_eq!(world.count(Fate::DuplicateAnswered), 2);
    assert_eq!(world.count(Fate::DuplicateWaiting), 1);
    assert_eq!(world.accounting.counters().accounted(), world.accounting.counters().received);
}

#[test]
fn what_could_not_be_stored_is_stored_at_the_next_attempt() {
    let mut world = World::new();
    let packet = start().encode(1, &secret());
    let (ticket, _) = report(&world.take(0, &packet));
    assert!(world.settle(1, ticket, false).is_empty());
    let (again, _) = report(&world.take(5, &packet));
    assert_ne!(again, ticket);
    response(&world.settle(6, again, true));
}

#[test]
fn an_old_packet_is_refused_and_one_that_waited_is_not() {
    let mut world = World::new();
    let old = start().encode(1, &secret());
    let outputs = world.take(301, &old);
    let [Output::Notice(notice)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(notice.message, "Radius[Clock]");
    let told = "a packet of client \"pgw\" was sent 301 s before our time, allowed: 300 s";
    assert!(notice.description.ends_with(told), "{}", notice.description);
    // Its sender could not reach us for an hour, and says so.
    let waited = AccountingRequest { delay_s: Some(3_600), ..start() };
    report(&world.take(3_601, &waited.encode(2, &secret())));
    let early = AccountingRequest { happened_at: Some(at(5_000)), ..start() };
    world.take(4_000, &early.encode(3, &secret()));
    assert_eq!(world.count(Fate::Stale), 2);
}

#[test]
fn a_message_authenticator_is_checked_and_asked_for() {
    let mut world =
        World::with(|client| client.require_message_authenticator(true), Limits::default());
    world.take(0, &start().encode(1, &secret()));
    assert_eq!(world.count(Fate::NoMessageAuthenticator), 1);
    let signed = AccountingRequest { has_message_authenticator: true, ..start() };
    report(&world.take(0, &signed.encode(2, &secret())));
    let mut forged = signed.encode(3, &secret());
    let last = forged.len() - 1;
    forged[last] ^= 1;
    wire::sign_request(&mut forged, b"k7Gq-2mfPz-x81Lk");
    world.take(0, &forged);
    assert_eq!(world.count(Fate::WrongMessageAuthenticator), 1);
}

#[test]
fn too_many_are_left_to_their_senders() {
    let limits = Limits { outstanding_max: 1, ..Limits::default() };
    let mut world = World::with(|client| client, limits);
    let (ticket, _) = report(&world.take(0, &start().encode(1, &secret())));
    let second = AccountingRequest { session: "s2".to_owned(), ..start() }.encode(2, &secret());
    let outputs = world.take(0, &second);
    assert!(matches!(&outputs[..], [Output::Notice(_)]), "{outputs:?}");
    world.settle(1, ticket, true);
    report(&world.take(2, &second));
}

#[test]
fn a_server_that_begins_anew_and_one_that_only_asks() {
    let mut world = World::new();
    for (identifier, status) in [(1, StatusType::AccountingOn), (2, StatusType::AccountingOff)] {
        let request = AccountingRequest {
            nas_identifier: Some("pgw-1".to_owned()),
            ..AccountingRequest::new(status, "")
        };
        let (_, report) = report(&world.take(0, &request.encode(identifier, &secret())));
        assert_eq!((report.change, report.server.as_str()), (SessionChange::Restart, "pgw/pgw-1"));
        assert_eq!(report.session, "");
    }
    // Status-Server (RFC 5997).
    let mut status = vec![wire::STATUS_SERVER, 3, 0, 0];
    status.extend_from_slice(&[9; 16]);
    wire::push_attribute(&mut status, wire::MESSAGE_AUTHENTICATOR, &[0; 16]);
    wire::close_packet(&mut status);
    wire::sign_message(&mut status, HEADER_BYTES + 2, &[9; 16], b"k7Gq-2mfPz-x81Lk");
    assert_eq!(verify_response(response(&world.take(0, &status)), &status, &secret()), Ok(()));
}

#[test]
fn what_is_wrong_is_dropped_and_counted() {
    let good = start().encode(1, &secret());
    let edited = |edit: fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        edit(&mut packet);
        packet
    };
    let resigned = |edit: fn(&mut Vec<u8>)| {
        let mut packet = edited(edit);
        wire::close_packet(&mut packet);
        wire::sign_request(&mut packet, b"k7Gq-2mfPz-x81Lk");
        packet
    };
    let other = Secret::new(b"another secret, long", false).unwrap();
    let mut long = vec![4; 5_000];
    long[2..4].copy_from_slice(&5_000_u16.to_be_bytes());
    let cases = [
        (start().encode(1, &other), Fate::WrongAuthenticator),
        (edited(|packet| packet[HEADER_BYTES + 5] ^= 1), Fate::WrongAuthenticator),
        (good[..19].to_vec(), Fate::Malformed),
        (good[..good.len() - 1].to_vec(), Fate::Malformed),
        (edited(|packet| packet[3] = 19), Fate::Malformed),
        (edited(|packet| packet[HEADER_BYTES + 1] = 0), Fate::Malformed),
        (edited(|packet| packet[HEADER_BYTES + 1] = 1), Fate::Malformed),
        (edited(|packet| packet[HEADER_BYTES + 1] = 255), Fate::Malformed),
        (long, Fate::Malformed),
        (vec![4; 5_000], Fate::WrongAuthenticator),
        (resigned(|packet| packet[0] = 1), Fate::UnexpectedCode),
        // No status, no session, a vendor's length that lies.
        (resigned(|packet| packet.truncate(HEADER_BYTES)), Fate::Unusable),
        (resigned(|packet| packet.truncate(HEADER_BYTES + 6)), Fate::Unusable),
        (
            resigned(|packet| {
                wire::push_attribute(packet, wire::VENDOR_SPECIFIC, &[0, 0, 0x28, 0xaf, 1, 9, 1]);
            }),
            Fate::Unusable,
        ),
    ];
    for (place, (datagram, fate)) in cases.into_iter().enumerate() {
        let mut world = World::new();
        let outputs = world.take(0, &datagram);
        assert!(!outputs.iter().any(|output| !matches!(output, Output::Notice(_))), "{place}");
        assert_eq!(world.count(fate), 1, "case {place}: {:?}", world.accounting.counters());
    }
    let mut world = World::new();
    let stranger = "10.2.0.1:2000".parse().unwrap();
    assert_eq!(world.take_from(stranger, 0, &good).len(), 1);
    assert!(world.take_from(stranger, 1, &good).is_empty(), "said once in a while");
    assert_eq!(world.count(Fate::UnknownClient), 2);
}

/// Packets from invented addresses took all places for notices, and for an hour nobody was told
/// that a client had another secret.
#[test]
fn strangers_do_not_hide_what_is_wrong_with_a_client() {
    let mut world = World::new();
    let packet = start().encode(1, &Secret::new(b"another secret, long", false).unwrap());
    let told = (0..200_u8).filter(|last| {
        let stranger = SocketAddr::from(([10, 9, 0, *last], 2_000));
        !world.take_from(stranger, 0, &packet).is_empty()
    });
    assert!(told.count() < 100, "they are not worth an entry each");
    let outputs = world.take(0, &packet);
    let [Output::Notice(notice)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(notice.message, "Radius[WrongSecret]");
}

#[test]
fn a_modem_is_known_by_the_zero_that_the_radio_sends_as_its_check_digit() {
    let read = |imei: &[u8]| {
        let mut packet = start().encode(1, &secret());
        let mut around = vec![0, 0, 0x28, 0xaf];
        wire::push_attribute(&mut around, 20, imei);
        wire::push_attribute(&mut packet, wire::VENDOR_SPECIFIC, &around);
        wire::close_packet(&mut packet);
        wire::sign_request(&mut packet, b"k7Gq-2mfPz-x81Lk");
        report(&World::new().take(0, &packet)).1.imei
    };
    let number = |text: &str| Some(text.parse().unwrap());
    assert_eq!(read(b"260531793113837"), number("260531793113837"));
    assert_eq!(read(b"260531793113830"), number("26053179311383"));
    assert_eq!(read(b"260531793113838"), None);
}

#[test]
fn values_without_a_meaning_leave_the_rest() {
    let mut packet = start().encode(1, &secret());
    let imsi = [0, 0, 0x28, 0xaf, 1, 5, b'1', b'2', b'x'];
    for (kind, value) in [
        (8, &[100, 64, 0][..]),
        (97, &[0, 48, 1, 2]),
        (55, &[1]),
        (wire::VENDOR_SPECIFIC, &imsi),
        // Another vendor's, with lengths of its own kind.
        (wire::VENDOR_SPECIFIC, &[0, 0, 0, 9, 1, 99]),
    ] {
        wire::push_attribute(&mut packet, kind, value);
    }
    wire::close_packet(&mut packet);
    wire::sign_request(&mut packet, b"k7Gq-2mfPz-x81Lk");
    let mut world = World::new();
    let (_, report) = report(&world.take(0, &packet));
    assert_eq!((report.ipv4, report.imsi), (start().ipv4, start().imsi));
    assert_eq!(world.accounting.counters().values_ignored, 4);
}

proptest! {
    #[test]
    fn no_bytes_break_it(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
        World::new().take(0, &datagram);
    }

    /// Everything but the signatures is the attacker's.
    #[test]
    fn no_signed_bytes_break_it(attributes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut packet = vec![0; HEADER_BYTES];
        packet[0] = wire::ACCOUNTING_REQUEST;
        packet.extend(attributes);
        wire::close_packet(&mut packet);
        wire::sign_request(&mut packet, b"k7Gq-2mfPz-x81Lk");
        World::new().take(0, &packet);
    }

    #[test]
    fn a_changed_byte_is_never_taken(place in 0_usize..60, change in 1_u8..) {
        let mut packet = start().encode(1, &secret());
        let place = place % packet.len();
        packet[place] ^= change;
        let outputs = World::new().take(0, &packet);
        let is_taken = outputs.iter().any(|output| matches!(output, Output::Report { .. }));
        prop_assert!(!is_taken, "byte {}", place);
    }
}

/// What the fuzz target does, with few bytes.
#[path = "survival/mod.rs"]
mod survival;

proptest! {
    #[test]
    fn arbitrary_bytes_survive(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survival::packet_survives(&bytes);
    }
}

/// One step of a network that repeats itself, and of a store that answers in any order.
#[derive(Debug, Clone)]
enum Step {
    /// Packet of this number, from one of two ports.
    Take(u8, u16),
    /// The outstanding report at this place, and whether it is stored.
    Settle(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u8..6, 2_000_u16..2_002).prop_map(|(number, port)| Step::Take(number, port)),
        (0_usize..8, any::<bool>()).prop_map(|(place, stored)| Step::Settle(place, stored)),
    ]
}

proptest! {
    /// A packet is answered exactly if its report was stored before, which happens once.
    #[test]
    fn every_order_of_copies_and_stores_is_answered_right(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let packets: Vec<_> = (0..6_u8).map(|number| {
            AccountingRequest { session: number.to_string(), ..start() }.encode(7, &secret())
        }).collect();
        let mut world = World::new();
        let (mut waiting, mut stored) = (Vec::<(Ticket, String)>::new(), Vec::<String>::new());
        for step in steps {
            match step {
                Step::Take(number, port) => {
                    let name = number.to_string();
                    let from = SocketAddr::from(([10, 1, 0, 1], port));
                    match &world.take_from(from, 0, &packets[usize::from(number)])[..] {
                        [Output::Report { ticket, report }] => {
                            prop_assert_eq!(&report.session, &name);
                            prop_assert!(!stored.contains(&name), "stored twice");
                            prop_assert!(waiting.iter().all(|(_, other)| *other != name));
                            waiting.push((*ticket, name));
                        }
                        [Output::Transmit { to, .. }] => {
                            prop_assert_eq!(to.remote, from);
                            prop_assert!(stored.contains(&name), "answered before it was stored");
                        }
                        [] => prop_assert!(waiting.iter().any(|(_, other)| *other == name)),
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                Step::Settle(place, is_stored) if place < waiting.len() => {
                    let (ticket, name) = waiting.remove(place);
                    let outputs = world.settle(0, ticket, is_stored);
                    prop_assert_eq!(outputs.len(), usize::from(is_stored));
                    stored.extend(is_stored.then_some(name));
                }
                Step::Settle(..) => {}
            }
            let counters = world.accounting.counters();
            let outstanding = u64::try_from(world.accounting.outstanding()).unwrap();
            prop_assert_eq!(counters.received, counters.accounted() + outstanding);
        }
    }

    #[test]
    fn what_is_encoded_is_read(
        (mcc, mnc, digits) in (1_u16..1_000, 0_u16..100, 2_u8..4),
        (area, cell, is_5g) in (any::<u16>(), 0_u32..1 << 28, any::<bool>()),
        (up, down, delay_s) in (any::<u64>(), any::<u64>(), 0_u32..250),
        ip in 1_u32..u32::MAX - 1,
    ) {
        let plmn = Plmn::new(mcc, mnc, digits).unwrap();
        let location = if is_5g {
            let cell = u64::from(cell) << 8 | 0x5a;
            UserLocation::Nr { plmn, area: Some(area.into()), cell: Some(cell) }
        } else {
            UserLocation::Lte { plmn, area: Some(area), cell: Some(cell) }
        };
        let request = AccountingRequest {
            ipv4: Some(Ipv4Addr::from_bits(ip)),
            location: Some(location),
            octets: Some(Octets { up, down }),
            delay_s: Some(delay_s),
            ..start()
        };
        let (_, report) = report(&World::new().take(0, &request.encode(0, &secret())));
        prop_assert_eq!((report.ipv4, report.octets), (request.ipv4, request.octets));
        prop_assert_eq!(report.cell, Some(location.tower(report.access)));
        prop_assert_eq!(report.happened_at, at(0));
    }
}
