//! `simgate simulate` without the gateway around it, for measuring the generator alone.
//! `cargo run --release -p simulator --example simulate -- 127.0.0.1:5690 --devices 1000`

use std::io::{self, IsTerminal};
use std::sync::atomic::AtomicBool;

use clap::Parser;
use simulator::{Arguments, Console, SimulateError};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> Result<(), SimulateError> {
    let console = Console {
        output: &mut io::stdout(),
        progress: &mut io::stderr(),
        terminal: io::stderr().is_terminal(),
    };
    Line::parse().arguments.execute(console, &AtomicBool::new(false))
}
