//! A name server on loopback that answers what a test tells it, by UDP and TCP (RFC 1035).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// What the server does with a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// These addresses, with a life of so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// No such name, to be remembered for so many seconds.
    NoSuchName(u32),
    /// SERVFAIL.
    Failure,
    /// Nothing.
    Silence,
}

/// A running server.
#[derive(Debug, Clone)]
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    questions: Arc<AtomicUsize>,
}

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
/// Longer answers are truncated over UDP, as they are without EDNS.
const UDP_BYTES_MAX: usize = 512;

impl NameServer {
    /// Starts a server; names that it was not told of do not exist.
    pub(crate) async fn start() -> Self {
        let (udp, tcp, address) = sockets().await;
        let server = Self { address, replies: Arc::default(), questions: Arc::default() };
        let by_udp = server.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1_500];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                if let Some(mut answer) = by_udp.answer(&buffer[..length]) {
                    if answer.len() > UDP_BYTES_MAX {
                        truncate(&mut answer);
                    }
                    let _ = udp.send_to(&answer, from).await;
                }
            }
        });
        let by_tcp = server.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let server = by_tcp.clone();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0; usize::from(length)];
                        stream.read_exact(&mut question).await?;
                        if let Some(answer) = server.answer(&question) {
                            stream.write_u16(u16::try_from(answer.len()).unwrap()).await?;
                            stream.write_all(&answer).await?;
                        }
                    }
                    std::io::Result::Ok(())
                });
            }
        });
        server
    }

    /// From now on, `name` is answered so.
    pub(crate) fn tell(&self, name: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(name.to_owned(), reply);
    }

    /// From now on, `name` has these addresses, which nobody may remember.
    pub(crate) fn tell_addresses(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.tell(name, Reply::Addresses(addresses, 0));
    }

    /// Questions so far.
    pub(crate) fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let (name, end) = read_name(question)?;
        let family = u16::from_be_bytes([question[end], question[end + 1]]);
        let known = self.replies.lock().unwrap().get(&name).cloned();
        let reply = known.unwrap_or(Reply::NoSuchName(0));
        let (code, addresses, ttl, has_soa) = match reply {
            Reply::Addresses(addresses, ttl) => (0, addresses, ttl, false),
            Reply::NoSuchName(ttl) => (3, Vec::new(), ttl, true),
            Reply::Failure => (2, Vec::new(), 0, false),
            Reply::Silence => return None,
        };
        let records: Vec<Vec<u8>> =
            addresses.into_iter().filter_map(|address| record(address, family, ttl)).collect();
        let mut answer = question[..2].to_vec();
        // A response, recursion desired and available.
        answer.extend([0x81, 0x80 | code]);
        answer.extend(1_u16.to_be_bytes());
        answer.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
        answer.extend(u16::from(has_soa).to_be_bytes());
        answer.extend(0_u16.to_be_bytes());
        answer.extend(&question[12..end + 4]);
        answer.extend(records.concat());
        if has_soa {
            answer.extend(authority(ttl));
        }
        Some(answer)
    }
}

/// A UDP and a TCP socket with the same port.
async fn sockets() -> (UdpSocket, TcpListener, SocketAddr) {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = tcp.local_addr().unwrap();
        if let Ok(udp) = UdpSocket::bind(address).await {
            return (udp, tcp, address);
        }
    }
}

/// The name in the question, and where it ends.
fn read_name(question: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_lowercase());
        at += length;
    }
}

/// A record about the name of the question.
fn record(address: IpAddr, family: u16, ttl: u32) -> Option<Vec<u8>> {
    let (kind, bytes) = match address {
        IpAddr::V4(address) => (TYPE_A, address.octets().to_vec()),
        IpAddr::V6(address) => (TYPE_AAAA, address.octets().to_vec()),
    };
    (kind == family).then(|| {
        let mut record = vec![0xc0, 12];
        record.extend(kind.to_be_bytes());
        record.extend(1_u16.to_be_bytes());
        record.extend(ttl.to_be_bytes());
        record.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
        record.extend(bytes);
        record
    })
}

/// A start of authority, whose last field says how long a name does not exist (RFC 2308 §4).
fn authority(ttl: u32) -> Vec<u8> {
    let mut record = vec![0xc0, 12];
    record.extend(6_u16.to_be_bytes());
    record.extend(1_u16.to_be_bytes());
    record.extend(ttl.to_be_bytes());
    record.extend(22_u16.to_be_bytes());
    record.extend([0, 0]);
    record.extend([1_u32, 60, 60, 60, ttl].map(u32::to_be_bytes).concat());
    record
}

/// Says that there is more, and gives nothing.
fn truncate(answer: &mut Vec<u8>) {
    answer[2] |= 0x02;
    let (_, end) = read_name(answer).unwrap();
    answer.truncate(end + 4);
    answer[6..12].fill(0);
}
