//! Who tells the gateway which SIM holds which address, and in which cell it is.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use device_authenticator::AddressSource;
use management_api::StreamAccess;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::values::{self, ConfigError, Secret};

/// What the mobile network says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Network {
    /// What makes a source address the address of a SIM.
    #[serde(deserialize_with = "addresses")]
    pub(crate) addresses: AddressSource,
    /// Data sessions at most.
    pub(crate) sessions_max: usize,
    /// A session of which nothing was heard for so long no longer vouches for its address, unless
    /// its reports show how often it is heard.
    #[serde(deserialize_with = "values::duration")]
    pub(crate) session_stale_after: Duration,
    /// A feed that says nothing for so long is worth an entry in the administration log.
    #[serde(deserialize_with = "values::duration")]
    pub(crate) feed_silent_after: Duration,
    /// RADIUS accounting servers.
    pub(crate) radius: Vec<RadiusListener>,
    /// Event streams of SIM vendors.
    pub(crate) streams: Vec<Stream>,
    /// A listener of their own for event streams, with the certificate of the API; without it
    /// they stand on the API's.
    #[serde(deserialize_with = "values::optional_address")]
    pub(crate) streams_listen: Option<SocketAddr>,
}

/// Below it packets that wait in a queue are refused; beyond it too many answers are remembered,
/// each for twice as long.
const CLOCK_SKEW: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(1);

/// One RADIUS accounting server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with the keys listen and clients")]
pub(crate) struct RadiusListener {
    #[serde(deserialize_with = "values::address")]
    pub(crate) listen: SocketAddr,
    /// The name of the feed.
    #[serde(default = "radius_name")]
    pub(crate) name: String,
    /// Who may send.
    pub(crate) clients: Vec<RadiusClient>,
    /// How far the time at which a packet was sent may be from ours.
    #[serde(default = "clock_skew_max", deserialize_with = "values::duration")]
    pub(crate) clock_skew_max: Duration,
}

/// Who may send accounting.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(expecting = "a table with the keys name, address and secret or secret_file")]
pub(crate) struct RadiusClient {
    /// The operator's name for it.
    pub(crate) name: String,
    /// Its address, or its network such as `10.1.0.0/24`.
    pub(crate) address: String,
    /// The shared secret.
    #[serde(default)]
    pub(crate) secret: Option<Secret>,
    /// A file that holds it instead.
    #[serde(default)]
    pub(crate) secret_file: Option<PathBuf>,
    /// Take a secret that is short or known.
    #[serde(default)]
    pub(crate) allow_weak_secret: bool,
    /// Drop packets without a Message-Authenticator.
    #[serde(default)]
    pub(crate) require_message_authenticator: bool,
    /// Drop packets without an Event-Timestamp.
    #[serde(default)]
    pub(crate) require_event_timestamp: bool,
}

/// One event stream of a SIM vendor.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with the keys name and secret or secret_file")]
pub(crate) struct Stream {
    /// The last part of its URL, and the name of the feed.
    pub(crate) name: String,
    /// The user of HTTP Basic; without it the secret is a bearer token.
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// The password or the token.
    #[serde(default)]
    pub(crate) secret: Option<Secret>,
    /// A file that holds it instead.
    #[serde(default)]
    pub(crate) secret_file: Option<PathBuf>,
    /// As `network.session_stale_after`, for the sessions of this stream: vendors say nothing of a
    /// session between its beginning and its end.
    #[serde(default = "stream_stale_after", deserialize_with = "values::duration")]
    pub(crate) session_stale_after: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            addresses: AddressSource::Both,
            sessions_max: 1_000_000,
            session_stale_after: Duration::from_secs(2 * values::HOUR_S),
            feed_silent_after: Duration::from_secs(values::DAY_S),
            radius: Vec::new(),
            streams: Vec::new(),
            streams_listen: None,
        }
    }
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AddressSource, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "registry" => Ok(AddressSource::Registry),
        "sessions" => Ok(AddressSource::Sessions),
        "both" => Ok(AddressSource::Both),
        other => Err(D::Error::custom(format!(
            "{other:?} says no source of addresses, allowed: registry, sessions, both"
        ))),
    }
}

/// Vendors say nothing of a session between its creation and its deletion.
fn stream_stale_after() -> Duration {
    Duration::from_secs(7 * values::DAY_S)
}

fn clock_skew_max() -> Duration {
    radius::Limits::default().clock_skew_max
}

fn radius_name() -> String {
    "radius".to_owned()
}

impl Network {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        values::in_range("network.sessions_max", self.sessions_max, 1_000..=50_000_000)?;
        values::in_time("network.session_stale_after", self.session_stale_after)?;
        values::in_time("network.feed_silent_after", self.feed_silent_after)?;
        for listener in &self.radius {
            name("network.radius.name", &listener.name)?;
            if listener.clients.is_empty() {
                return Err(ConfigError::Value(format!(
                    "network.radius on {} has no clients: nobody could send to it",
                    listener.listen
                )));
            }
            if !CLOCK_SKEW.contains(&listener.clock_skew_max) {
                return Err(ConfigError::Range {
                    key: "network.radius.clock_skew_max".to_owned(),
                    found: format!("{:?}", listener.clock_skew_max),
                    allowed: "10s to 1h".to_owned(),
                });
            }
            for client in &listener.clients {
                name("network.radius.clients.name", &client.name)?;
            }
        }
        self.streams.iter().try_for_each(Stream::check)?;
        let mut names: Vec<_> = self.feed_names().collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ConfigError::Value(format!(
                "two feeds of the network are named {:?}: each needs a name of its own",
                pair[0]
            ))),
            None => Ok(()),
        }
    }

    /// The names of all feeds.
    pub(crate) fn feed_names(&self) -> impl Iterator<Item = &str> {
        let radius = self.radius.iter().map(|listener| listener.name.as_str());
        radius.chain(self.streams.iter().map(|stream| stream.name.as_str()))
    }
}

impl Stream {
    fn check(&self) -> Result<(), ConfigError> {
        name("network.streams.name", &self.name)?;
        values::in_time("network.streams.session_stale_after", self.session_stale_after)
    }
}

/// A name that may stand in a URL, a metric and a log line.
fn name(key: &str, found: &str) -> Result<(), ConfigError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&found.len()) && found.bytes().all(is_plain) {
        return Ok(());
    }
    Err(ConfigError::Range {
        key: key.to_owned(),
        found: format!("{found:?}"),
        allowed: "1 to 64 letters, digits, '-', '_' and '.'".to_owned(),
    })
}

/// Bytes of a stream's secret at least: whoever guesses it says who holds which address.
const STREAM_SECRET_BYTES_MIN: usize = 16;

impl Stream {
    /// What it has to show.
    pub(crate) fn access(&self) -> Result<StreamAccess, ConfigError> {
        let key = format!("network.streams {:?}", self.name);
        let secret = secret(&key, (self.secret.as_ref(), self.secret_file.as_ref()))?;
        let bytes = secret.0.len();
        if bytes < STREAM_SECRET_BYTES_MIN {
            let allowed = format!("at least {STREAM_SECRET_BYTES_MIN} bytes");
            let key = format!("the secret of {key}");
            return Err(ConfigError::Range { key, found: format!("{bytes} bytes"), allowed });
        }
        Ok(StreamAccess { user: self.user.clone(), secret: secret.0 })
    }
}

/// A secret from one of its two places.
pub(crate) fn secret(
    key: &str,
    (text, file): (Option<&Secret>, Option<&PathBuf>),
) -> Result<Secret, ConfigError> {
    match (text, file) {
        (Some(secret), None) => Ok(secret.clone()),
        (None, Some(path)) => {
            let read = std::fs::read_to_string(path);
            let read = read.map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            Ok(Secret(read.trim_end().to_owned().into()))
        }
        _ => {
            Err(ConfigError::Value(format!("{key} needs a secret or a file with it, and not both")))
        }
    }
}
