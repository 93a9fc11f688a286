//! All listeners: bound together, then run on one thread per core.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use lwm2m::{Files, Link, Model, Registry, Server, ServerConfig};
use metrics::counter;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, warn};
use vocabulary::Protocol;
use zeroize::Zeroizing;

use crate::clear_listener::ClearListener;
use crate::coap_service::CoapService;
use crate::drops;
use crate::lwm2m_service::Lwm2mService;
use crate::orders::{Downlink, Inbox};
use crate::plain::PlainListener;
use crate::routes::Routes;
use crate::secure_listener::SecureListener;
use crate::service::random_seed;
use crate::sessions::Sessions;
use crate::spread;
use crate::udp::{BoundSocket, UdpSocket};
use crate::uplink::Ingest;

/// How often the kernel's drop counters are read.
const DROPS_INTERVAL: Duration = Duration::from_millis(200);

/// What to listen on.
#[derive(Debug, Clone)]
pub struct ListenersConfig {
    /// Sockets, and threads, per listener; at least one.
    pub sockets: usize,
    /// The listeners.
    pub listeners: Vec<ListenerConfig>,
}

/// One listener.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether the network vouches for source addresses: only then they are identities.
    pub is_vouched: bool,
    /// What is spoken there.
    pub speaks: Speaks,
}

/// What is spoken on a listener.
#[derive(Debug, Clone)]
pub enum Speaks {
    /// One datagram, one message.
    Udp {
        /// Larger payloads are dropped, in bytes.
        payload_bytes_max: usize,
    },
    /// CoAP.
    Coap(CoapLimits),
    /// CoAP over DTLS.
    Coaps(CoapLimits, Box<SecureConfig>),
    /// LwM2M.
    Lwm2m(CoapLimits),
    /// LwM2M over DTLS.
    Lwm2ms(CoapLimits, Box<SecureConfig>),
    /// Requests to devices, from one socket; what devices send there is CoAP like any other.
    Commands(CoapLimits),
}

/// What the sockets of LwM2M share.
#[derive(Clone)]
pub struct Lwm2mParts {
    /// The registrations.
    pub registry: Registry,
    /// What objects mean.
    pub model: Arc<Model>,
    /// What a bootstrap tells devices, and how registrations are kept.
    pub server: ServerConfig,
    /// Whether each registration and update is followed by reading what the device has.
    pub passive_reporting: Arc<AtomicBool>,
}

/// Limits of a CoAP listener.
#[derive(Debug, Clone, Copy)]
pub struct CoapLimits {
    /// Larger bodies are answered 4.13, in bytes.
    pub body_bytes_max: usize,
    /// Exchanges remembered over all sockets of the listener.
    pub exchanges_max: usize,
}

/// DTLS of a listener.
#[derive(Debug, Clone)]
pub struct SecureConfig {
    /// Whether a key counts only together with the address of its SIM.
    pub needs_address: bool,
    /// How sessions are made and kept. Limits are over all sockets of the listener; the shard, the
    /// generation and the persistence are the listener's own business.
    pub dtls: dtls::Config,
}

/// Sessions of an earlier start.
#[derive(Default)]
pub struct SavedSessions {
    /// The number of this start, see [`dtls::Config::generation`].
    pub generation: u32,
    /// By the address of their listener.
    pub of_listener: HashMap<SocketAddr, Vec<Zeroizing<Vec<u8>>>>,
}

/// Which of the sockets of a listener one is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) listener: SocketAddr,
    pub(crate) index: usize,
    pub(crate) count: usize,
}

/// Why a listener cannot listen.
#[derive(Debug, Error)]
#[error("cannot listen on {name} {address}: {source}")]
pub struct BindError {
    name: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Listeners that have their ports, but read nothing yet.
pub struct Listeners {
    sockets: usize,
    bound: Vec<(ListenerConfig, Vec<BoundSocket>)>,
    routes: Routes,
    downlink: Downlink,
    /// By the number of the seat.
    inboxes: Vec<Inbox>,
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

/// One socket of a listener, with the sessions that it takes over.
struct Seat {
    config: ListenerConfig,
    place: Place,
    /// Counted over all listeners.
    number: u32,
    socket: BoundSocket,
    sessions: Vec<Zeroizing<Vec<u8>>>,
    inbox: Inbox,
}

/// The sockets of one thread.
struct Shard {
    generation: u32,
    seats: Vec<Seat>,
    routes: Routes,
    downlink: Downlink,
    lwm2m: Lwm2mParts,
}

impl Speaks {
    /// The protocol of its messages.
    fn protocol(&self) -> Protocol {
        match self {
            Self::Udp { .. } => Protocol::Udp,
            Self::Coap(_) | Self::Coaps(..) | Self::Commands(_) => Protocol::Coap,
            Self::Lwm2m(_) | Self::Lwm2ms(..) => Protocol::Lwm2m,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Udp { .. } => "UDP",
            Self::Coap(_) => "COAP",
            Self::Coaps(..) => "COAPS",
            Self::Lwm2m(_) => "LWM2M",
            Self::Lwm2ms(..) => "LWM2MS",
            Self::Commands(_) => "COMMANDS",
        }
    }
}

impl Listeners {
    /// Binds every socket of every listener. Devices of LwM2M are those of `registry`.
    pub fn bind(config: &ListenersConfig, registry: Registry) -> Result<Self, BindError> {
        let sockets = config.sockets.max(1);
        let bind = |listener: &ListenerConfig| {
            let bound = bind_all(listener, sockets).map_err(|source| BindError {
                name: listener.speaks.name(),
                address: listener.address,
                source,
            })?;
            Ok((listener.clone(), bound))
        };
        let bound: Vec<(ListenerConfig, Vec<BoundSocket>)> =
            config.listeners.iter().map(bind).collect::<Result<_, _>>()?;
        let first = |is_meant: fn(&Speaks) -> bool| {
            let place = bound.iter().position(|(config, _)| is_meant(&config.speaks))?;
            Some(bound[..place].iter().map(|(_, sockets)| sockets.len()).sum())
        };
        let kinds = (
            first(|speaks| matches!(speaks, Speaks::Commands(_))),
            first(|speaks| speaks.protocol() == Protocol::Lwm2m),
        );
        let seats = bound.iter().map(|(_, sockets)| sockets.len()).sum();
        let routes = Routes::default();
        let (downlink, inboxes) = Downlink::new(seats, kinds, (routes.clone(), registry));
        Ok(Self { sockets, bound, routes, downlink, inboxes })
    }

    /// What gives orders to the sockets.
    pub fn downlink(&self) -> Downlink {
        self.downlink.clone()
    }

    /// Which socket of LwM2M hears a device, after a restart that finds the sessions of `saved`.
    pub fn lwm2m_seats(&self, saved: &SavedSessions) -> impl Fn(Link) -> Option<u32> + use<> {
        let (mut first, mut plain, mut sessions) = (0, None, HashMap::new());
        for (config, sockets) in &self.bound {
            let count = sockets.len();
            match &config.speaks {
                Speaks::Lwm2m(_) => plain = plain.or(Some((first, count))),
                Speaks::Lwm2ms(..) => {
                    let listener = sockets.first().map(|socket| socket.address);
                    let saved = listener.and_then(|listener| saved.of_listener.get(&listener));
                    sessions.extend(saved.into_iter().flatten().filter_map(|session| {
                        let place = first + spread::place_of_session(session, count);
                        Some((dtls::saved_session(session)?.as_u64(), place))
                    }));
                }
                _ => {}
            }
            first += count;
        }
        move |link| {
            let seat = match link {
                Link::Address(address) => {
                    plain.map(|(first, count)| first + spread::place_of_address(address, count))
                }
                Link::Session(session) => sessions.get(&session).copied(),
            };
            seat.and_then(|seat| u32::try_from(seat).ok())
        }
    }

    /// The addresses of the plain UDP listeners, with the ports that they got.
    pub fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.addresses(|speaks| matches!(speaks, Speaks::Udp { .. }))
    }

    /// The addresses of the CoAP listeners, with the ports that they got.
    pub fn coap_addresses(&self) -> Vec<SocketAddr> {
        self.addresses(|speaks| matches!(speaks, Speaks::Coap(_)))
    }

    /// The addresses of the listeners for CoAP over DTLS, with the ports that they got.
    pub fn coaps_addresses(&self) -> Vec<SocketAddr> {
        self.addresses(|speaks| matches!(speaks, Speaks::Coaps(..)))
    }

    /// The addresses of the LwM2M listeners, with the ports that they got.
    pub fn lwm2m_addresses(&self) -> Vec<SocketAddr> {
        self.addresses(|speaks| matches!(speaks, Speaks::Lwm2m(_)))
    }

    /// The addresses of the listeners for LwM2M over DTLS, with the ports that they got.
    pub fn lwm2ms_addresses(&self) -> Vec<SocketAddr> {
        self.addresses(|speaks| matches!(speaks, Speaks::Lwm2ms(..)))
    }

    /// The address that requests to devices come from, with the port that it got.
    pub fn commands_addresses(&self) -> Vec<SocketAddr> {
        self.addresses(|speaks| matches!(speaks, Speaks::Commands(_)))
    }

    fn addresses(&self, is_meant: impl Fn(&Speaks) -> bool) -> Vec<SocketAddr> {
        let meant = self.bound.iter().filter(|(config, _)| is_meant(&config.speaks));
        meant.filter_map(|(_, sockets)| Some(sockets.first()?.address)).collect()
    }

    /// Starts to read, giving every message to `ingest`. Sessions of `saved` go on.
    pub fn run<I: Ingest>(
        self,
        ingest: &I,
        saved: SavedSessions,
        lwm2m: &Lwm2mParts,
    ) -> io::Result<Running> {
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let mut threads = vec![spawn_drop_watch(self.inodes(), stopped.clone())?];
        let shards = self.shards(saved, lwm2m).into_iter().filter(|shard| !shard.seats.is_empty());
        for (index, shard) in shards.enumerate() {
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
        let inodes = |(config, sockets): &(ListenerConfig, Vec<BoundSocket>)| {
            let protocol = config.speaks.protocol();
            sockets.iter().map(|socket| (protocol, socket.inode)).collect::<Vec<_>>()
        };
        self.bound.iter().flat_map(inodes).collect()
    }

    /// One socket of each listener for each thread.
    fn shards(self, mut saved: SavedSessions, lwm2m: &Lwm2mParts) -> Vec<Shard> {
        let shard = |_| Shard {
            generation: saved.generation,
            seats: Vec::new(),
            routes: self.routes.clone(),
            downlink: self.downlink.clone(),
            lwm2m: lwm2m.clone(),
        };
        let mut shards: Vec<Shard> = (0..self.sockets).map(shard).collect();
        let mut inboxes = (0_u32..).zip(self.inboxes);
        for (config, sockets) in self.bound {
            let Some(listener) = sockets.first().map(|socket| socket.address) else { continue };
            let count = sockets.len();
            let mut sessions = vec![Vec::new(); count];
            for session in saved.of_listener.remove(&listener).unwrap_or_default() {
                sessions[spread::place_of_session(&session, count)].push(session);
            }
            let seats = sockets.into_iter().zip(sessions).enumerate();
            for (shard, (index, (socket, sessions))) in shards.iter_mut().zip(seats) {
                let place = Place { listener, index, count };
                let Some((number, inbox)) = inboxes.next() else { continue };
                let config = config.clone();
                shard.seats.push(Seat { config, place, number, socket, sessions, inbox });
            }
        }
        shards
    }
}

impl Shard {
    fn run<I: Ingest>(mut self, ingest: &I, stop: &watch::Receiver<bool>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // The buffers of a socket hold pointers into themselves and stay on this thread.
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let mut listeners = JoinSet::new();
            for seat in std::mem::take(&mut self.seats) {
                self.seat(seat, ingest, stop, &mut listeners)?;
            }
            while let Some(ended) = listeners.join_next().await {
                ended.map_err(io::Error::other)??;
            }
            Ok(())
        })
    }

    /// Starts to serve one socket.
    fn seat<I: Ingest>(
        &self,
        seat: Seat,
        ingest: &I,
        stop: &watch::Receiver<bool>,
        listeners: &mut JoinSet<io::Result<()>>,
    ) -> io::Result<()> {
        let Seat { config, place, number, socket, sessions, inbox } = seat;
        let saved = (self.generation, sessions);
        let protocol = config.speaks.protocol();
        let socket = UdpSocket::new(socket)?;
        let (ingest, stop, is_vouched) = (ingest.clone(), stop.clone(), config.is_vouched);
        let links = (inbox, self.downlink.clone());
        let sessions = |secure: Box<SecureConfig>| {
            let routes = (self.routes.clone(), number);
            Sessions::open((*secure, is_vouched, protocol), place, saved, (&ingest, routes))
        };
        match config.speaks {
            Speaks::Udp { payload_bytes_max } => {
                let listener = PlainListener { socket, is_vouched, payload_bytes_max, ingest };
                listeners.spawn_local(listener.run(stop));
            }
            Speaks::Coap(limits) | Speaks::Commands(limits) => {
                let service = CoapService::new(limits.of_one(place.count), ingest, links);
                let listener = ClearListener::new(socket, is_vouched, service);
                listeners.spawn_local(listener.run(stop));
            }
            Speaks::Coaps(limits, secure) => {
                let sessions = sessions(secure)?;
                let service = CoapService::new(limits.of_one(place.count), ingest, links);
                let listener = SecureListener::new(socket, sessions, service);
                listeners.spawn_local(listener.run(stop));
            }
            Speaks::Lwm2m(limits) => {
                let service = self.lwm2m(limits.of_one(place.count), number, ingest, links);
                let listener = ClearListener::new(socket, is_vouched, service);
                listeners.spawn_local(listener.run(stop));
            }
            Speaks::Lwm2ms(limits, secure) => {
                let sessions = sessions(secure)?;
                let service = self.lwm2m(limits.of_one(place.count), number, ingest, links);
                let listener = SecureListener::new(socket, sessions, service);
                listeners.spawn_local(listener.run(stop));
            }
        }
        Ok(())
    }

    fn lwm2m<I: Ingest>(
        &self,
        limits: CoapLimits,
        number: u32,
        ingest: I,
        links: (Inbox, Downlink),
    ) -> Lwm2mService<I> {
        let Lwm2mParts { registry, model, server, passive_reporting } = self.lwm2m.clone();
        let images = ingest.clone();
        let files = Files(Arc::new(move |device, name, until| images.image(device, name, until)));
        let config = ServerConfig { coap: limits.endpoint(), files, ..server };
        let server = Server::new(config, registry, model, number, random_seed());
        Lwm2mService::new((server, limits.body_bytes_max, number), ingest, links, passive_reporting)
    }
}

impl CoapLimits {
    /// The configuration of an endpoint with these limits.
    pub(crate) fn endpoint(self) -> coap::Config {
        let limits = coap::Limits {
            upload_bytes_max: self.body_bytes_max,
            exchanges_max: u32::try_from(self.exchanges_max).unwrap_or(u32::MAX),
            ..coap::Limits::default()
        };
        coap::Config { limits, ..coap::Config::default() }
    }

    /// The share of one socket: devices spread over the sockets evenly enough.
    fn of_one(self, sockets: usize) -> Self {
        Self { exchanges_max: self.exchanges_max.div_ceil(sockets), ..self }
    }
}

impl Running {
    /// Resolves when a listener thread ends: unasked, it leaves its devices without answers, and
    /// the process should end.
    pub async fn ended(&self) {
        if self.ended.clone().wait_for(|ended| *ended).await.is_err() {
            // Whoever could say so says so before it goes: there never was a thread.
            std::future::pending::<()>().await;
        }
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

fn bind_all(listener: &ListenerConfig, sockets: usize) -> io::Result<Vec<BoundSocket>> {
    ensure_unused(listener.address)?;
    let first = BoundSocket::bind(listener.address)?;
    let sockets = if matches!(listener.speaks, Speaks::Commands(_)) { 1 } else { sockets };
    // With port 0 the first socket found a port that the others take, too.
    let taken = first.address;
    let rest = (1..sockets).map(|_| BoundSocket::bind(taken));
    let mut bound = std::iter::once(Ok(first)).chain(rest).collect::<io::Result<Vec<_>>>()?;
    // There a device must find the socket that knows it, also after a restart.
    let is_bound_to_socket =
        matches!(listener.speaks, Speaks::Coaps(..) | Speaks::Lwm2m(_) | Speaks::Lwm2ms(..));
    if is_bound_to_socket && let Err(error) = spread::attach(&bound) {
        warn!(%error, address = %taken, "one socket has to do: the kernel cannot tell devices");
        bound.truncate(1);
    }
    Ok(bound)
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
