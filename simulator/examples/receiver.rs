//! A webhook that answers 200, for benchmarks of what sends to it, and for measuring itself.
//! `cargo run --release -p simulator --example receiver -- 127.0.0.1:8099`
//!
//! Each second in which something came it prints a line for people. At SIGUSR1, SIGTERM and ctrl-c
//! it prints its counts as one line of JSON: with `--ledger` also those of each path, whose
//! latencies are the ones since the last such line.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use simulator::{Behaviour, Receiver, ReceiverOptions, ServerIdentity};
use tokio::signal::unix::{SignalKind, signal};

/// What is done with `--hang`: longer than anybody waits.
const NEVER: Duration = Duration::from_secs(86_400);

#[derive(Debug, Parser)]
struct Line {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:8099")]
    address: SocketAddr,
    /// Speak TLS, and write the certificate of the authority to be trusted to DIR/ca.pem.
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
    /// Over TLS, speak HTTP/1.1 also to clients that would rather speak HTTP/2.
    #[arg(long, requires = "tls")]
    http1: bool,
    /// Answer 500 to so many requests in a hundred.
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    fail: u8,
    /// Read requests and never answer.
    #[arg(long, conflicts_with = "fail")]
    hang: bool,
    /// Which requests fail.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Keep the ids of events: to tell duplicates, what changed places, and latencies.
    #[arg(long)]
    ledger: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let receiver = Receiver::start(options(&Line::parse())?)?;
    writeln!(io::stdout(), "receives on {}", receiver.url())?;
    let mut asked = signal(SignalKind::user_defined1())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    let mut before = receiver.counts();
    loop {
        tokio::select! {
            _ = seconds.tick() => {
                let counts = receiver.counts();
                let requests = counts.requests - before.requests;
                let events = counts.events - before.events;
                if requests > 0 {
                    let total = counts.requests;
                    writeln!(io::stdout(), "{total} requests ({requests}/s, {events} events/s)")?;
                }
                before = counts;
            }
            _ = asked.recv() => {
                report(&receiver)?;
                receiver.restart_latencies();
            }
            _ = terminated.recv() => return report(&receiver),
            _ = tokio::signal::ctrl_c() => return report(&receiver),
        }
    }
}

fn options(line: &Line) -> Result<ReceiverOptions, Box<dyn std::error::Error>> {
    let identity = match &line.tls {
        Some(folder) => {
            let (identity, authority) = ServerIdentity::self_made()?;
            fs::create_dir_all(folder)?;
            fs::write(folder.join("ca.pem"), authority)?;
            Some(if line.http1 { identity.without_http2() } else { identity })
        }
        None => None,
    };
    let behaviour = if line.hang {
        Behaviour::AnswerAfter(200, NEVER)
    } else {
        Behaviour::Fail { percent: line.fail, status: 500 }
    };
    Ok(ReceiverOptions {
        address: line.address,
        keep: 0,
        behaviour,
        identity,
        seed: line.seed,
        ledger: line.ledger,
        ..ReceiverOptions::default()
    })
}

fn report(receiver: &Receiver) -> Result<(), Box<dyn std::error::Error>> {
    let report = serde_json::json!({ "counts": receiver.counts(), "paths": receiver.tallies() });
    // In one piece, so that who reads the file behind it never sees a half.
    io::stdout().write_all(format!("{report}\n").as_bytes())?;
    Ok(())
}
