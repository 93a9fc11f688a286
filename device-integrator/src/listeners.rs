//! All listeners: bound together, then run on one thread per core.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::counter;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, warn};
use vocabulary::{IdentityClass, Protocol};

use crate::coap_listener::CoapListener;
use crate::drops;
use crate::plain::PlainListener;
use crate::udp::{BoundSocket, UdpSocket};
use crate::uplink::Ingest;

/// How often the kernel's drop counters are read.
const DROPS_INTERVAL: Duration = Duration::from_millis(200);

/// What to listen on.
#[derive(Debug, Clone)]
pub struct ListenersConfig {
    /// Sockets, and threads, per listener; at least one.
    pub sockets: usize,
    /// Plain UDP listeners.
    pub udp: Vec<UdpListenerConfig>,
    /// CoAP listeners.
    pub coap: Vec<CoapListenerConfig>,
}

/// One plain UDP listener.
#[derive(Debug, Clone)]
pub struct UdpListenerConfig {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// What a source address proves here; `None`: nothing.
    pub class: Option<IdentityClass>,
    /// Larger payloads are dropped, in bytes.
    pub payload_bytes_max: usize,
}

/// One CoAP listener.
#[derive(Debug, Clone)]
pub struct CoapListenerConfig {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// What a source address proves here; `None`: nothing.
    pub class: Option<IdentityClass>,
    /// Larger bodies are answered 4.13, in bytes.
    pub body_bytes_max: usize,
    /// Exchanges remembered over all sockets of the listener.
    pub exchanges_max: usize,
}

/// Why a listener cannot listen.
#[derive(Debug, Error)]
#[error("cannot listen on {protocol} {address}: {source}")]
pub struct BindError {
    protocol: Protocol,
    address: SocketAddr,
    source: io::Error,
}

/// Listeners that have their ports, but read nothing yet.
pub struct Listeners {
    sockets: usize,
    udp: Vec<(UdpListenerConfig, Vec<BoundSocket>)>,
    coap: Vec<(CoapListenerConfig, Vec<BoundSocket>)>,
}

/// Listeners that run.
pub struct Running {
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// Says that a listener thread ended, also by a panic.
struct Farewell(watch::Sender<bool>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// The sockets of one thread.
struct Shard {
    udp: Vec<(UdpListenerConfig, BoundSocket)>,
    coap: Vec<(CoapListenerConfig, BoundSocket)>,
}

impl Listeners {
    /// Binds every socket of every listener.
    pub fn bind(config: &ListenersConfig) -> Result<Self, BindError> {
        let sockets = config.sockets.max(1);
        let udp = config.udp.iter().map(|listener| {
            let bound = bind_all(Protocol::Udp, listener.address, sockets)?;
            Ok((listener.clone(), bound))
        });
        let coap = config.coap.iter().map(|listener| {
            let bound = bind_all(Protocol::Coap, listener.address, sockets)?;
            let mut listener = listener.clone();
            // Devices spread over the sockets evenly enough for each to take its share.
            listener.exchanges_max = listener.exchanges_max.div_ceil(sockets);
            Ok((listener, bound))
        });
        Ok(Self {
            sockets,
            udp: udp.collect::<Result<_, _>>()?,
            coap: coap.collect::<Result<_, _>>()?,
        })
    }

    /// The addresses of the plain UDP listeners, with the ports that they got.
    pub fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|(_, sockets)| Some(sockets.first()?.address)).collect()
    }

    /// The addresses of the CoAP listeners, with the ports that they got.
    pub fn coap_addresses(&self) -> Vec<SocketAddr> {
        self.coap.iter().filter_map(|(_, sockets)| Some(sockets.first()?.address)).collect()
    }

    /// Starts to read, giving every message to `ingest`.
    pub fn run<I: Ingest>(self, ingest: &I) -> io::Result<Running> {
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let mut threads = vec![spawn_drop_watch(self.inodes(), stopped.clone())?];
        for (index, shard) in self.shards().into_iter().enumerate() {
            let (ingest, stopped) = (ingest.clone(), stopped.clone());
            let thread = std::thread::Builder::new().name(format!("device-{index}"));
            let farewell = Farewell(end.clone());
            threads.push(thread.spawn(move || {
                let _farewell = farewell;
                if let Err(error) = shard.run(&ingest, &stopped) {
                    error!(%error, "a listener thread ended: its devices get no answers");
                }
            })?);
        }
        Ok(Running { stop, ended, threads })
    }

    fn inodes(&self) -> Vec<(Protocol, u64)> {
        let inodes = |protocol, sockets: &[BoundSocket]| -> Vec<(Protocol, u64)> {
            sockets.iter().map(|socket| (protocol, socket.inode)).collect()
        };
        let udp = self.udp.iter().flat_map(|(_, sockets)| inodes(Protocol::Udp, sockets));
        let coap = self.coap.iter().flat_map(|(_, sockets)| inodes(Protocol::Coap, sockets));
        udp.chain(coap).collect()
    }

    /// One socket of each listener for each thread.
    fn shards(self) -> Vec<Shard> {
        let mut shards: Vec<Shard> =
            (0..self.sockets).map(|_| Shard { udp: Vec::new(), coap: Vec::new() }).collect();
        for (listener, sockets) in self.udp {
            for (shard, socket) in shards.iter_mut().zip(sockets) {
                shard.udp.push((listener.clone(), socket));
            }
        }
        for (listener, sockets) in self.coap {
            for (shard, socket) in shards.iter_mut().zip(sockets) {
                shard.coap.push((listener.clone(), socket));
            }
        }
        shards
    }
}

impl Shard {
    fn run<I: Ingest>(self, ingest: &I, stop: &watch::Receiver<bool>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // The buffers of a socket hold pointers into themselves and stay on this thread.
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let mut listeners = JoinSet::new();
            for (config, bound) in self.udp {
                let listener = PlainListener {
                    socket: UdpSocket::new(bound)?,
                    class: config.class,
                    payload_bytes_max: config.payload_bytes_max,
                    ingest: ingest.clone(),
                };
                listeners.spawn_local(listener.run(stop.clone()));
            }
            for (config, bound) in self.coap {
                let socket = UdpSocket::new(bound)?;
                let listener = CoapListener::new(&config, socket, ingest.clone());
                listeners.spawn_local(listener.run(stop.clone()));
            }
            while let Some(ended) = listeners.join_next().await {
                ended.map_err(io::Error::other)??;
            }
            Ok(())
        })
    }
}

impl Running {
    /// Resolves when a listener thread ends: unasked, it leaves its devices without answers, and
    /// the process should end.
    pub async fn ended(&self) {
        // Senders go away only with their threads.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Stops reading, waits until what was read is answered, and returns. Blocks.
    pub fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                warn!("a listener thread had panicked");
            }
        }
    }
}

fn bind_all(
    protocol: Protocol,
    address: SocketAddr,
    sockets: usize,
) -> Result<Vec<BoundSocket>, BindError> {
    let failed = |source| BindError { protocol, address, source };
    ensure_unused(address).map_err(failed)?;
    let first = BoundSocket::bind(address).map_err(failed)?;
    // With port 0 the first socket found a port that the others take, too.
    let taken = first.address;
    let rest = (1..sockets).map(|_| BoundSocket::bind(taken).map_err(failed));
    std::iter::once(Ok(first)).chain(rest).collect()
}

/// SO_REUSEPORT would let a second gateway of the same user share the port, and each would get
/// half of the devices: a socket without it finds out.
fn ensure_unused(address: SocketAddr) -> io::Result<()> {
    std::net::UdpSocket::bind(address).map(drop)
}

/// Exports what the kernel dropped, until the listeners stop.
fn spawn_drop_watch(
    sockets: Vec<(Protocol, u64)>,
    stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    let inodes: Vec<u64> = sockets.iter().map(|(_, inode)| *inode).collect();
    let counters: Vec<_> = sockets
        .iter()
        .enumerate()
        .map(|(index, (protocol, inode))| {
            let counter = counter!(
                "simgate_kernel_receive_drops_total", "protocol" => protocol.as_str(),
                "socket" => index.to_string()
            );
            (*inode, counter)
        })
        .collect();
    std::thread::Builder::new().name("drops".to_owned()).spawn(move || {
        while !*stop.borrow() {
            let drops = drops::read(&inodes);
            for (inode, counter) in &counters {
                counter.absolute(drops.get(inode).copied().unwrap_or(0));
            }
            std::thread::sleep(DROPS_INTERVAL);
        }
    })
}
