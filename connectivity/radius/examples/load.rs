//! Sends different Accounting-Requests to a server and measures its answers:
//! `cargo run --release -p radius --example load -- ADDRESS:PORT SECRET [PACKETS] [OUTSTANDING]`.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::collections::VecDeque;
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use radius::{AccountingRequest, Secret, StatusType, UserLocation, verify_response};
use vocabulary::{Imsi, Octets, RadioAccess, Timestamp};

/// An identifier has eight bits, so each port has so few packets under way.
const PER_PORT: usize = 64;
const SEND_AGAIN: Duration = Duration::from_millis(500);

/// Packets under way from one port.
struct Port {
    socket: UdpSocket,
    under_way: Vec<Option<(Vec<u8>, Instant, Instant)>>,
}

fn packet(number: u64, secret: &Secret) -> Result<Vec<u8>, Box<dyn Error>> {
    let subscriber = Imsi::from_u64(901_405_100_000_000 + number).ok_or("too many packets")?;
    let request = AccountingRequest {
        nas_identifier: Some("pgw-1".to_owned()),
        ipv4: Some(std::net::Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number)?)),
        imsi: Some(subscriber),
        msisdn: Some(format!("4917{number:010}").parse()?),
        imei: Some("3520990017614823".parse()?),
        apn: Some("iot.example".to_owned()),
        access: Some(RadioAccess::NbIot),
        location: Some(UserLocation::Lte {
            plmn: "262-01".parse()?,
            area: Some(30_003),
            cell: Some(1_360_641),
        }),
        octets: Some(Octets { up: number, down: number }),
        happened_at: Some(Timestamp::from(SystemTime::now())),
        ..AccountingRequest::new(StatusType::Start, &format!("load-{number}"))
    };
    Ok(request.encode(u8::try_from(number % PER_PORT as u64)?, secret))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: load ADDRESS:PORT SECRET [PACKETS] [OUTSTANDING]";
    let to: SocketAddr = arguments.next().ok_or(usage)?.parse()?;
    let secret = Secret::new(arguments.next().ok_or(usage)?.as_bytes(), true)?;
    let packets: u64 = arguments.next().map_or(Ok(5_000), |text| text.parse())?;
    let outstanding: usize = arguments.next().map_or(Ok(64), |text| text.parse())?;
    // Other packets each time: a server would know those of the last run.
    let first = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() % 10_000 * 1_000;
    let mut waiting: VecDeque<Vec<u8>> = VecDeque::new();
    for number in 0..packets {
        waiting.push_back(packet(first + number, &secret)?);
    }
    let mut port = open(to)?;
    let (mut latencies, mut repeats) = (Vec::new(), 0_u64);
    let (mut buffer, begun) = ([0; 4_096], Instant::now());
    let mut under_way = 0;
    while latencies.len() < usize::try_from(packets)? {
        while under_way < outstanding.min(PER_PORT)
            && let Some(next) = waiting.front()
        {
            let slot = usize::from(next[1]);
            if port.under_way[slot].is_some() {
                break;
            }
            port.socket.send(next)?;
            let now = Instant::now();
            port.under_way[slot] = waiting.pop_front().map(|packet| (packet, now, now));
            under_way += 1;
        }
        match port.socket.recv(&mut buffer) {
            Ok(length) => {
                let answer = &buffer[..length];
                let slot = answer.get(1).map_or(0, |identifier| usize::from(*identifier));
                let is_answer = port.under_way.get(slot).and_then(Option::as_ref);
                let is_answer = is_answer
                    .is_some_and(|(packet, ..)| verify_response(answer, packet, &secret).is_ok());
                if is_answer && let Some((_, sent, _)) = port.under_way[slot].take() {
                    latencies.push(sent.elapsed());
                    under_way -= 1;
                }
            }
            Err(_) => repeats += send_again(&mut port)?,
        }
    }
    let took = begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!(
        "{packets} packets, {outstanding} outstanding: {:.0}/s, p50 {:.1?}, p99 {:.1?}, {repeats} \
         sent again",
        packets as f64 / took,
        at(50),
        at(99),
    );
    Ok(())
}

fn open(to: SocketAddr) -> Result<Port, Box<dyn Error>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    Ok(Port { socket, under_way: vec![None; PER_PORT] })
}

fn send_again(port: &mut Port) -> Result<u64, Box<dyn Error>> {
    let mut repeats = 0;
    for (packet, _, last) in port.under_way.iter_mut().flatten() {
        if last.elapsed() >= SEND_AGAIN {
            port.socket.send(packet)?;
            *last = Instant::now();
            repeats += 1;
        }
    }
    Ok(repeats)
}
