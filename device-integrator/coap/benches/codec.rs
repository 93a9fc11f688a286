//! What a message costs: read, written, and as a whole exchange. Beside it coap-lite.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use coap::wire::{Code, Encoder, MessageId, MessageRef, MessageType, OptionNumber, Token};
use coap::{Config, Endpoint, Event, Output, Response};
use coap_lite::{CoapOption, Packet};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

/// CON POST, 8-byte token, 5 options, 64-byte payload: 110 bytes.
fn write(buffer: &mut Vec<u8>, id: u16) {
    let token = Token::from_u64(0x1122_3344_5566_7788);
    let con = MessageType::Confirmable;
    let written = Encoder::new(buffer, con, Code::POST, MessageId(id), token)
        .option(OptionNumber::URI_HOST, b"coap.os.1nce.com")
        .option(OptionNumber::URI_PATH, b"data")
        .uint(OptionNumber::CONTENT_FORMAT, 42)
        .option(OptionNumber::URI_QUERY, b"t=test")
        .uint(OptionNumber::ACCEPT, 0)
        .payload(&[0x5a; 64]);
    assert!(written.is_ok());
}

#[divan::bench]
fn parse_and_walk(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    write(&mut bytes, 1);
    bencher.bench_local(|| {
        MessageRef::parse(black_box(&bytes))
            .map_or(0, |message| message.options().map(|option| option.value.len()).sum::<usize>())
    });
}

#[divan::bench]
fn parse_coap_lite(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    write(&mut bytes, 1);
    bencher.bench_local(|| Packet::from_bytes(black_box(&bytes)).is_ok());
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let mut buffer = Vec::with_capacity(256);
    bencher.bench_local(|| {
        buffer.clear();
        write(black_box(&mut buffer), 1);
        buffer.len()
    });
}

#[divan::bench]
fn encode_coap_lite(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| {
        let mut packet = Packet::new();
        packet.set_token(vec![1, 2, 3, 4, 5, 6, 7, 8]);
        packet.add_option(CoapOption::UriHost, b"coap.os.1nce.com".to_vec());
        packet.add_option(CoapOption::UriPath, b"data".to_vec());
        packet.add_option(CoapOption::ContentFormat, vec![42]);
        packet.add_option(CoapOption::UriQuery, b"t=test".to_vec());
        packet.add_option(CoapOption::Accept, vec![]);
        packet.payload = vec![0x5a; 64];
        packet.to_bytes().map_or(0, |bytes| bytes.len())
    });
}

/// Exchanges per round: each of 10,000 peers sends one.
const PEERS: u32 = 10_000;

/// CON POST in, event out, 2.04 in, acknowledgement out, with 10,000 peers whose earlier messages
/// are all remembered.
#[divan::bench(sample_count = 50, sample_size = 1)]
fn exchange_of_ten_thousand_peers(bencher: Bencher<'_, '_>) {
    let peers: Vec<SocketAddr> =
        (0..PEERS).map(|n| SocketAddr::from(((0x0a00_0000 + n).to_be_bytes(), 5683))).collect();
    let mut endpoint = Endpoint::new(Config::default(), 1);
    let mut now = Instant::now();
    let mut datagram = Vec::with_capacity(256);
    let mut id = 0_u16;
    bencher.counter(ItemsCount::new(PEERS)).bench_local(|| {
        id += 1;
        now += Duration::from_secs(10);
        datagram.clear();
        write(&mut datagram, id);
        for peer in &peers {
            endpoint.handle_datagram(now, *peer, &datagram);
            loop {
                match endpoint.poll_output() {
                    Output::Event(Event::Request(request)) => {
                        black_box(&request.payload);
                        endpoint.respond(now, request.exchange, Response::new(Code::CHANGED));
                    }
                    Output::Transmit { bytes, .. } => {
                        black_box(&bytes[..]);
                    }
                    Output::Event(_) => {}
                    Output::Timeout(at) => {
                        black_box(at);
                        break;
                    }
                }
            }
        }
    });
}

/// A garbage datagram: a confirmable message with a bad option, answered with a reset.
#[divan::bench]
fn malformed(bencher: Bencher<'_, '_>) {
    let mut endpoint = Endpoint::new(Config::default(), 1);
    let now = Instant::now();
    bencher.bench_local(|| {
        endpoint.handle_datagram(now, 1_u32, black_box(b"\x40\x01\x00\x01\xf0"));
        while !matches!(black_box(endpoint.poll_output()), Output::Timeout(_)) {}
    });
}
