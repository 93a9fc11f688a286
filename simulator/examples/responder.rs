//! The other end for measuring the generator itself: answers each CoAP request with 2.04, a
//! registration of LwM2M with 2.01, and does nothing else.
//! `cargo run --release -p simulator --example responder -- 127.0.0.1:5690`

use std::io::{self, Write};
use std::net::SocketAddrV4;

use coap::wire::{Code, MessageRef, OptionNumber};
use simulator::{Answer, Responder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5690".to_owned());
    let address: SocketAddrV4 = address.parse()?;
    let responder = Responder::start(address, |_, request| {
        let is_registration = is_registration(request);
        Answer::Piggybacked(if is_registration { Code::CREATED } else { Code::CHANGED })
    })?;
    writeln!(io::stdout(), "answers on {}", responder.address())?;
    loop {
        std::thread::park();
    }
}

fn is_registration(request: &MessageRef<'_>) -> bool {
    let mut path = request.options().filter(|option| option.number == OptionNumber::URI_PATH);
    path.next().is_some_and(|first| first.value == b"rd") && path.next().is_none()
}
