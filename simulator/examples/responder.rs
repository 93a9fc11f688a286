//! The other end for measuring the generator itself: answers each CoAP request with 2.04 and does
//! nothing else. `cargo run --release -p simulator --example responder -- 127.0.0.1:5690`

use std::io::{self, Write};
use std::net::SocketAddrV4;

use coap::wire::Code;
use simulator::{Answer, Responder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5690".to_owned());
    let address: SocketAddrV4 = address.parse()?;
    let responder = Responder::start(address, |_, _| Answer::Piggybacked(Code::CHANGED))?;
    writeln!(io::stdout(), "answers on {}", responder.address())?;
    loop {
        std::thread::park();
    }
}
