//! Answers Accounting-Requests that it stores nowhere: what the protocol and the kernel can do at
//! most on a machine. `cargo run --release -p radius --example limit -- ADDRESS:PORT SECRET`.

use std::error::Error;
use std::future::{Ready, ready};

use radius::server::{Reports, serve};
use radius::{Accounting, Client, Clients, Config, Limits, Secret};
use tokio::net::UdpSocket;
use vocabulary::{Notice, SessionReport};

struct Nowhere;

impl Reports for Nowhere {
    type Storing = Ready<bool>;

    fn store(&self, _: Vec<SessionReport>) -> Ready<bool> {
        ready(true)
    }

    fn note(&self, _: Notice) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: limit ADDRESS:PORT SECRET";
    let address = arguments.next().ok_or(usage)?;
    let secret = Secret::new(arguments.next().ok_or(usage)?.as_bytes(), true)?;
    let clients = Clients::new(vec![Client::new("loopback", "127.0.0.1", secret)?])?;
    let config = Config { feed: "limit".to_owned(), clients, limits: Limits::default() };
    let socket = UdpSocket::bind(address).await?;
    // Nobody forges packets here.
    let seed = 0;
    Ok(serve(socket, Accounting::new(config, seed), Nowhere).await?)
}
