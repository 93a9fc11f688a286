//! What the mobile network says: data sessions, and the servers that hear of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use data_sessions::{SessionStore, Sessions, Settings};
use management_api::FeedState;
use message_log::{Kind, KindSet, MessageLog, Offset, ReadError, ReadLimits};
use metrics::gauge;
use radius::server::Reports;
use radius::{Accounting, Client, Clients, Limits, Secret};
use state::StateFile;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::{error, warn};
use vocabulary::{EventKind, Notice, SessionReport, Timestamp};

use crate::config::{Config, Network, RadiusListener, Stream, network_secret};
use crate::feeds::{Feed, Feeds};
use crate::network_desk::{NetworkDesk, Storing};

/// How often the snapshot of sessions is written. After a crash so much of the log is read again.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);
/// Every how many snapshots the past is forgotten, and silent feeds are looked for.
const SNAPSHOTS_PER_SWEEP: u64 = 60;

/// The data sessions of earlier starts, with what the log knows since.
pub(crate) fn open(config: &Config, log: &MessageLog) -> anyhow::Result<(Sessions, SessionStore)> {
    let network = &config.network;
    let own = |stream: &Stream| (stream.name.clone(), stream.session_stale_after);
    let settings = Settings {
        sessions_max: network.sessions_max,
        stale_after: network.session_stale_after,
        stale_after_of_feed: network.streams.iter().map(own).collect(),
    };
    let file = StateFile::new(config.data.dir.join("data_sessions.db"));
    let (mut store, sessions) =
        SessionStore::open(&file, settings).context("data sessions cannot be opened")?;
    if sessions.cursor() > log.end().as_u64() {
        warn!("the snapshot of data sessions is of another message log: they are read anew");
        store.clear(&sessions).context("data sessions of another message log stay")?;
    }
    catch_up(log, &sessions).context("the reports of data sessions cannot be read")?;
    Ok((sessions, store))
}

/// Applies what the log holds beyond the snapshot.
fn catch_up(log: &MessageLog, sessions: &Sessions) -> Result<(), ReadError> {
    let kinds = KindSet::only(Kind::new(EventKind::Session.code()));
    let mut next = Offset::from_u64(sessions.cursor());
    let end = log.end();
    while next < end {
        let batch = match log.read_kinds(next, kinds, ReadLimits::default()) {
            Ok(batch) => batch,
            Err(ReadError::Overtaken { oldest }) => {
                next = oldest;
                continue;
            }
            Err(error) => return Err(error),
        };
        for record in &batch.records {
            match SessionReport::decode(&record.body) {
                Ok(report) => {
                    sessions.apply((record.offset.as_u64(), record.received_at), &report);
                }
                Err(error) => warn!(%error, "a session report cannot be read and is skipped"),
            }
        }
        if batch.next == next {
            break;
        }
        next = batch.next;
    }
    sessions.read_to(next.as_u64());
    Ok(())
}

/// Writes snapshots, forgets the past and looks for silent feeds, for ever.
pub(crate) async fn keep(
    (sessions, mut store): (Sessions, SessionStore),
    feeds: Feeds,
    desk: NetworkDesk,
) {
    let mut due = tokio::time::interval(SNAPSHOT_INTERVAL);
    let mut snapshots = 0_u64;
    loop {
        due.tick().await;
        snapshots += 1;
        let now = Timestamp::from(SystemTime::now());
        let (table, is_sweep) = (sessions.clone(), snapshots.is_multiple_of(SNAPSHOTS_PER_SWEEP));
        let written = tokio::task::spawn_blocking(move || {
            if is_sweep {
                table.expire(now);
            }
            let written = store.write(&table);
            (store, written)
        });
        let Ok((back, written)) = written.await else {
            error!("the snapshot of data sessions was cut off: the next start takes longer");
            return;
        };
        store = back;
        if let Err(error) = written {
            warn!(%error, "data sessions cannot be saved: the next start takes longer");
        }
        gauge!("simgate_data_sessions").set(sessions.len() as f64);
        if is_sweep {
            feeds.fallen_silent(now).into_iter().for_each(|notice| desk.note(notice));
        }
    }
}

/// The feeds of the configuration, with what the sessions know of earlier starts.
pub(crate) fn feeds(network: &Network, sessions: &Sessions) -> Feeds {
    let radius = network.radius.iter().map(|listener| (listener.name.as_str(), "RADIUS"));
    let streams = network.streams.iter().map(|stream| (stream.name.as_str(), "STREAM"));
    let now = Timestamp::from(SystemTime::now());
    Feeds::new(radius.chain(streams), &sessions.heard(), (network.feed_silent_after, now))
}

/// The feeds as the API has them.
pub(crate) fn api_feeds(
    network: &Network,
    (feeds, desk): (Feeds, NetworkDesk),
) -> anyhow::Result<management_api::Feeds> {
    let mut streams = HashMap::new();
    for stream in &network.streams {
        streams.insert(stream.name.clone(), stream.access()?);
    }
    let list = move || {
        let state = |(name, feed): (String, Feed)| FeedState {
            name,
            kind: feed.kind,
            state: match feed.heard_at {
                _ if feed.is_silent => "SILENT",
                Some(_) => "HEARD",
                None => "WAITING",
            },
            heard: feed.heard_at.map(|heard| heard.to_string()),
            reports: feed.reports,
        };
        feeds.list().into_iter().map(state).collect()
    };
    Ok(management_api::Feeds {
        streams,
        store: Some(Box::new(move |reports| Box::pin(desk.store(reports)))),
        list: Some(Box::new(list)),
    })
}

/// RADIUS servers, bound.
pub(crate) struct RadiusServers(Vec<(UdpSocket, Accounting)>);

impl RadiusServers {
    /// Binds the servers of the configuration.
    pub(crate) async fn bind(network: &Network) -> anyhow::Result<Self> {
        let mut servers = Vec::new();
        for listener in &network.radius {
            let accounting = accounting(listener)?;
            let socket = UdpSocket::bind(listener.listen).await;
            let socket = socket
                .with_context(|| format!("network.radius cannot listen on {}", listener.listen))?;
            servers.push((socket, accounting));
        }
        Ok(Self(servers))
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|(socket, _)| socket.local_addr().ok()).collect()
    }

    /// Lets packets in.
    pub(crate) fn serve(self, desk: &NetworkDesk) -> RunningRadius {
        let ended = Arc::new(Notify::new());
        let serve = |(socket, accounting)| {
            let (desk, ended) = (desk.clone(), Arc::clone(&ended));
            tokio::spawn(async move {
                if let Err(error) = radius::server::serve(socket, accounting, desk).await {
                    error!(%error, "a radius listener ended");
                }
                ended.notify_one();
            })
        };
        RunningRadius { tasks: self.0.into_iter().map(serve).collect(), ended }
    }
}

/// RADIUS servers that take packets.
pub(crate) struct RunningRadius {
    tasks: Vec<JoinHandle<()>>,
    ended: Arc<Notify>,
}

impl RunningRadius {
    /// Resolves when one of them ended unasked: from then on nobody would hear that network.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Takes no more packets. What they were told and is not durable yet they will be told again.
    pub(crate) fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn accounting(listener: &RadiusListener) -> anyhow::Result<Accounting> {
    let mut clients = Vec::new();
    for client in &listener.clients {
        let key = format!("network.radius client {:?}", client.name);
        let places = (client.secret.as_ref(), client.secret_file.as_ref());
        let secret = network_secret(&key, places)?;
        let secret = Secret::new(secret.0.as_bytes(), client.allow_weak_secret);
        let secret = secret.map_err(|error| anyhow::anyhow!("{key}: {error}"))?;
        let made = Client::new(&client.name, &client.address, secret);
        let made = made.map_err(|error| anyhow::anyhow!("{key}: {error}"))?;
        let made = made.require_message_authenticator(client.require_message_authenticator);
        clients.push(made.require_event_timestamp(client.require_event_timestamp));
    }
    let clients = Clients::new(clients).context("network.radius")?;
    let limits = Limits { clock_skew_max: listener.clock_skew_max, ..Limits::default() };
    let config = radius::Config { feed: listener.name.clone(), clients, limits };
    Ok(Accounting::new(config, secret_seed()))
}

/// A number that nobody outside can guess.
fn secret_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0_u8)
}

impl Reports for NetworkDesk {
    type Storing = Storing;

    fn store(&self, reports: Vec<SessionReport>) -> Storing {
        Self::store(self, reports)
    }

    fn note(&self, notice: Notice) {
        Self::note(self, notice);
    }
}
