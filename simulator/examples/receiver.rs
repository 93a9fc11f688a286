//! A webhook that answers 200 to everything, for benchmarks of what sends to it, and for measuring
//! itself. `cargo run --release -p simulator --example receiver -- 127.0.0.1:8099`

use std::io::{self, Write};
use std::time::Duration;

use simulator::{Receiver, ReceiverOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8099".to_owned());
    let options = ReceiverOptions { address: address.parse()?, keep: 0, ..Default::default() };
    let receiver = Receiver::start(options)?;
    writeln!(io::stdout(), "receives on {}", receiver.url())?;
    let mut before = 0;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let counts = receiver.counts();
        if counts.requests != before {
            let rate = counts.requests - before;
            writeln!(io::stdout(), "{} requests ({rate}/s)", counts.requests)?;
            before = counts.requests;
        }
    }
}
