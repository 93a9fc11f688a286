//! The HTTP server: hyper under a loop of our own, because limits against slow and greedy clients
//! need access to hyper's time-outs.
//!
//! | what | limit |
//! |---|---|
//! | TLS handshake | 5 s |
//! | head of a request (HTTP/1.1), also between two requests | 10 s |
//! | connection without a request in progress (HTTP/2 too) | 20 s |
//! | streams of an HTTP/2 connection | 64 |
//! | connections | [`Limits`] |
//!
//! HTTP/2 is chosen by ALPN, so only over TLS.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use metrics::{counter, gauge};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::connection::{self, Peer, Version};
use crate::throttle::address_key;
use crate::tls::{self, TlsError};

/// A client needs two round trips for a handshake; 5 s suffice for one
/// lost segment on each.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when the system has no file descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where and how to listen.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// With these files the server speaks HTTPS, without them plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Plain HTTP on an address that is not loopback, e.g. behind a reverse proxy.
    pub allow_plain_http: bool,
    /// How much strangers may take.
    pub limits: Limits,
}

/// The PEM files of an HTTPS server.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Limits of one server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time. 4,096 by default: each takes one file descriptor and at most
    /// about 100 kB.
    pub connections_max: usize,
    /// Connections of one address (IPv6: of one /64). 512 by default: an eighth of all.
    pub connections_per_ip_max: usize,
    /// How long requests in progress may take once the server is asked to stop. 5 s by default:
    /// half of what the whole program has.
    pub drain: Duration,
}

/// Why a server cannot listen.
#[derive(Debug, Error)]
pub enum BindError {
    /// Tokens would travel readable.
    #[error(
        "plain HTTP on {0}, allowed: a loopback address, TLS files, or allow_plain_http = true \
         behind a proxy"
    )]
    PlainHttp(SocketAddr),
    /// The certificate or the key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refused the address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A server that listens but does not answer yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 4_096, connections_per_ip_max: 512, drain: Duration::from_secs(5) }
    }
}

impl Server {
    /// Reads the TLS files and takes the address.
    pub async fn bind(config: ServerConfig) -> Result<Self, BindError> {
        let ServerConfig { address, tls, allow_plain_http, limits } = config;
        let acceptor = tls.map(|files| tls::acceptor(&files)).transpose()?;
        if acceptor.is_none() && !allow_plain_http && !address.ip().to_canonical().is_loopback() {
            return Err(BindError::PlainHttp(address));
        }
        let refused = |source| BindError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address, acceptor, limits })
    }

    /// The address, with the port that the system chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.acceptor.is_some() { "https" } else { "http" }
    }

    /// Answers until `shutdown` completes; then lets requests in progress finish for at most
    /// [`Limits::drain`].
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) {
        let Self { listener, acceptor, limits, .. } = self;
        let (stop, stopping) = watch::channel(false);
        let admission = Admission::new(limits);
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                // Takes finished tasks out of the set, so that it does not grow.
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let Some((stream, slot)) = admitted(accepted, &admission).await else { continue };
            let served = Served { acceptor: acceptor.clone(), stopping: stopping.clone(), slot };
            connections.spawn(served.run(stream, router.clone()));
        }
        drop(listener);
        // Receivers are the connections; without any there is nobody to tell.
        let _ = stop.send(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(limits.drain, drained).await.is_err() {
            warn!(left = connections.len(), "requests did not finish in time and are cut off");
        }
    }
}

async fn admitted(
    accepted: io::Result<(TcpStream, SocketAddr)>,
    admission: &Arc<Admission>,
) -> Option<(TcpStream, Slot)> {
    match accepted {
        Ok((stream, peer)) => match Admission::admit(admission, peer.ip()) {
            Some(slot) => Some((stream, slot)),
            None => {
                counter!("simgate_api_connections_refused_total").increment(1);
                None
            }
        },
        Err(error) if is_of_the_peer(&error) => None,
        Err(error) => {
            warn!(%error, "cannot accept a connection");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Whether the error is about a connection that its peer gave up before it was accepted.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// What one connection needs while it is served.
struct Served {
    acceptor: Option<TlsAcceptor>,
    stopping: watch::Receiver<bool>,
    slot: Slot,
}

impl Served {
    async fn run(self, stream: TcpStream, router: Router) {
        // Answers are small and whole: nothing is gained by waiting for more.
        let _ = stream.set_nodelay(true);
        let Self { acceptor, stopping, slot } = self;
        let Some(acceptor) = acceptor else {
            let peer = Peer { ip: slot.ip, secure: false };
            connection::serve(stream, router, Version::Http1, (peer, stopping)).await;
            return;
        };
        match timeout(TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let version = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Version::Http2,
                    _ => Version::Http1,
                };
                let peer = Peer { ip: slot.ip, secure: true };
                connection::serve(stream, router, version, (peer, stopping)).await;
            }
            Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
            Err(_) => debug!("TLS handshake took too long"),
        }
    }
}

/// Counts connections, as a whole and by address.
struct Admission {
    limits: Limits,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: usize,
    // Never more entries than connections.
    by_ip: HashMap<IpAddr, usize>,
}

/// The right to one connection; given back when dropped.
struct Slot {
    admission: Arc<Admission>,
    ip: IpAddr,
}

impl Admission {
    fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default() })
    }

    fn admit(this: &Arc<Self>, ip: IpAddr) -> Option<Slot> {
        let mut open = this.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_this_ip = open.by_ip.get(&address_key(ip)).copied().unwrap_or(0);
        let full = open.total >= this.limits.connections_max;
        if full || of_this_ip >= this.limits.connections_per_ip_max {
            return None;
        }
        open.total += 1;
        open.by_ip.insert(address_key(ip), of_this_ip + 1);
        gauge!("simgate_api_connections").increment(1);
        Some(Slot { admission: Arc::clone(this), ip })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        let key = address_key(self.ip);
        if let Some(count) = open.by_ip.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                open.by_ip.remove(&key);
            }
        }
        gauge!("simgate_api_connections").decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_address_and_as_a_whole() {
        let limits = Limits { connections_max: 3, connections_per_ip_max: 2, ..Limits::default() };
        let admission = Admission::new(limits);
        let admit = |ip: [u8; 4]| Admission::admit(&admission, ip.into());
        let first = admit([10, 0, 0, 1]);
        let second = admit([10, 0, 0, 1]);
        assert!(first.is_some() && second.is_some());
        assert!(admit([10, 0, 0, 1]).is_none());
        let third = admit([10, 0, 0, 2]);
        assert!(third.is_some());
        assert!(admit([10, 0, 0, 3]).is_none());
        drop(first);
        assert!(admit([10, 0, 0, 1]).is_some());
        drop((second, third));
        assert!(admission.open.lock().unwrap().by_ip.is_empty());
    }

    #[tokio::test]
    async fn plain_http_is_for_loopback_unless_the_operator_says_so() {
        let config = ServerConfig {
            address: "0.0.0.0:0".parse().unwrap(),
            tls: None,
            allow_plain_http: false,
            limits: Limits::default(),
        };
        let error = Server::bind(config.clone()).await.err().unwrap();
        assert!(matches!(error, BindError::PlainHttp(_)), "{error}");
        let allowed = Server::bind(ServerConfig { allow_plain_http: true, ..config }).await;
        assert_ne!(allowed.unwrap().address().port(), 0);
    }
}
