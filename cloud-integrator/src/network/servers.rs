//! The name servers in force: the operator's, or the system's as its files say at this time.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;

/// Of one question to one server; with one repetition all of it ends before the look-up does.
const QUESTION_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A name that does not exist may exist soon: a customer that mends its DNS is not kept waiting.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(30);
/// An address that its owner gives a longer life is asked for again all the same: it may move.
const POSITIVE_TTL_MAX: Duration = Duration::from_secs(3_600);
/// Answers that are remembered: some for each of 100 integrations, at about 200 bytes.
const CACHE_ANSWERS: u64 = 1_024;
/// How often the system's files are looked at, so that a gateway outlives a change of its network.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// What the system's configuration is read from.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// The name servers in force.
#[derive(Debug)]
pub(super) struct Servers {
    /// Empty for the system's.
    chosen: Vec<SocketAddr>,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    resolver: TokioResolver,
    changed_at: [Option<SystemTime>; FILES.len()],
    looked_at: Instant,
}

impl Servers {
    pub(super) fn new(chosen: Vec<SocketAddr>) -> Self {
        Self { chosen, current: Mutex::new(None) }
    }

    /// A client of the servers that are in force.
    pub(super) fn client(&self) -> Result<TokioResolver, NetError> {
        // What is in it is replaced as a whole, so a panic leaves nothing half-done.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = current.as_mut() {
            if known.looked_at.elapsed() < LOOK_INTERVAL {
                return Ok(known.resolver.clone());
            }
            known.looked_at = Instant::now();
            if known.changed_at == changes() {
                return Ok(known.resolver.clone());
            }
        }
        let changed_at = changes();
        let resolver = self.build()?;
        *current =
            Some(Current { resolver: resolver.clone(), changed_at, looked_at: Instant::now() });
        Ok(resolver)
    }

    fn build(&self) -> Result<TokioResolver, NetError> {
        let mut builder = if self.chosen.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.chosen.iter().map(server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        bound(builder.options_mut());
        builder.build()
    }
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .map(|mut connection| {
            connection.port = address.port();
            connection
        })
        .into();
    server
}

fn bound(options: &mut ResolverOpts) {
    options.timeout = options.timeout.min(QUESTION_TIMEOUT);
    options.attempts = 1;
    options.cache_size = CACHE_ANSWERS;
    options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
    options.positive_max_ttl = Some(POSITIVE_TTL_MAX);
}

fn changes() -> [Option<SystemTime>; FILES.len()] {
    FILES.map(|path| Path::new(path).metadata().and_then(|metadata| metadata.modified()).ok())
}
