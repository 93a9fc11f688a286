//! How a server behaves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use vocabulary::Iccid;

/// The accounts that bootstrapping writes, for one kind of channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Where devices register, `coap://192.0.2.1:5683` for example.
    pub server_uri: String,
    /// Where devices bootstrap again.
    pub bootstrap_uri: String,
}

/// What devices may fetch at `/fw/{name}`, such as firmware images: the bytes of a name, which
/// stands for its content. Told is who asks, and up to which byte.
#[derive(Clone)]
pub struct Files(pub Arc<Serve>);

/// Looks a file up.
type Serve = dyn Fn(Iccid, &str, u64) -> Option<Arc<[u8]>> + Send + Sync;

impl fmt::Debug for Files {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Files")
    }
}

/// How a server behaves.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The CoAP endpoint under it.
    pub coap: coap::Config,
    /// What a device that bootstraps without DTLS gets.
    pub plain: Account,
    /// What a device that bootstraps over DTLS gets.
    pub secure: Account,
    /// The short id of the server account. Default 1111.
    pub server_short_id: u16,
    /// The short id of the bootstrap account. Default 2222.
    pub bootstrap_short_id: u16,
    /// The lifetime that bootstrapping writes, and of a registration that names none. Default
    /// 86,400 s (LwM2M Core 1.1 table 6.2.1-1).
    pub lifetime_seconds: u32,
    /// The shortest time between notifications that bootstrapping writes. Default 1 s.
    pub period_min_seconds: u32,
    /// How long a registration lasts at most without an update, whatever the device says. Default
    /// 30 days.
    pub lifetime_max: Duration,
    /// How long a registration lasts beyond its lifetime. Default 247 s, the exchange lifetime: an
    /// update sent at the last moment may be repeated and late.
    pub expiry_grace: Duration,
    /// How long a device in queue mode listens after it was heard. Default 93 s,
    /// `MAX_TRANSMIT_WAIT` (LwM2M Core 1.1 §6.5).
    pub awake_for: Duration,
    /// What devices may fetch. Default: nothing.
    pub files: Files,
    /// Whether bootstrapping asks a device first what it has. Default: no.
    pub bootstrap_discover: bool,
    /// Bootstraps under way. Default 10,000.
    pub bootstraps_max: usize,
    /// Tickets not settled. Default 65,536.
    pub tickets_max: usize,
    /// Moments of one Send. Default 1,024.
    pub send_moments_max: usize,
}

impl ServerConfig {
    /// The defaults, with these accounts.
    pub fn new(plain: Account, secure: Account) -> Self {
        Self {
            coap: coap::Config::default(),
            plain,
            secure,
            server_short_id: 1111,
            bootstrap_short_id: 2222,
            lifetime_seconds: 86_400,
            period_min_seconds: 1,
            lifetime_max: Duration::from_hours(30 * 24),
            expiry_grace: Duration::from_secs(247),
            awake_for: Duration::from_secs(93),
            files: Files(Arc::new(|_, _, _| None)),
            bootstrap_discover: false,
            bootstraps_max: 10_000,
            tickets_max: 65_536,
            send_moments_max: 1_024,
        }
    }
}
