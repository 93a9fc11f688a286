//! The other end for measuring the generator itself over DTLS: any identity, the key
//! `0123456789abcdef`, 2.04 to each request.
//! `cargo run --release -p simulator --example secure_responder -- 127.0.0.1:5694`

use std::io::{self, Write};

use coap::wire::Code;
use dtls::{Config, Limits, Psk};
use simulator::{Answer, SecureResponder, SecureResponderOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5694".to_owned());
    // The generator is to be the limit, not the server's caution.
    let limits = Limits {
        handshakes_per_second: 1_000_000,
        handshakes_burst: 1_000_000,
        half_open_max: 100_000,
        half_open_per_network_max: 100_000,
        ..Limits::default()
    };
    let options = SecureResponderOptions {
        address: address.parse()?,
        dtls: Config { limits, ..Config::default() },
        key: Psk::new(b"0123456789abcdef".to_vec())?,
        lost_per_mille: 0,
    };
    let responder = SecureResponder::start(options, |_, _| Answer::Piggybacked(Code::CHANGED))?;
    writeln!(io::stdout(), "answers on {}", responder.address())?;
    loop {
        std::thread::park();
    }
}
