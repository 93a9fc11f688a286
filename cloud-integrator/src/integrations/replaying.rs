//! Dead letters, and delivering again.

use message_log::{Offset, Query, ReadError};
use state::nanoid;
use thiserror::Error;
use vocabulary::{Iccid, Protocol, Timestamp};

use super::{Integrations, now};
use crate::integration::ChangeError;
use crate::progress::ReplaySource;
use crate::reading::Source;
use crate::replay_preview::{Preview, PreviewLimits, preview};
use crate::store::{DeadLetterEntry, DeadLetterFilter, NewReplay, Replay, ReplayState, StoreError};

/// A message may be stored so long after it was received, and another before it (docs/delivery.md:
/// what waited 10 s is refused).
const COMMIT_DELAY_MAX: std::time::Duration = std::time::Duration::from_secs(15);

/// Devices of one replay at most. An estimate.
const DEVICES_MAX: usize = 1_000;

/// Replays of one integration that run at the same time at most: each reads the log on its own.
const RUNNING_MAX: usize = 10;

/// Which messages an integration is to deliver again, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplayRequest {
    /// Received at this moment or later; without it from the oldest that is kept.
    pub from: Option<Timestamp>,
    /// Received before this moment; without it all until now.
    pub until: Option<Timestamp>,
    /// Of these devices; all where there are none.
    pub devices: Vec<Iccid>,
    /// Whether messages are translated by the templates that are active now, instead of those of
    /// their day. A protocol without an active template keeps those of the day.
    pub newest_templates: bool,
}

/// Why nothing is delivered again.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The integration, or the state file.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Nothing to deliver.
    #[error("no dead letter fits")]
    Nothing,
    /// No such replay.
    #[error("no replay has the id {0:?}")]
    NotFound(String),
    /// It has ended.
    #[error("the replay is {}, only RUNNING can be cancelled", .0.as_str())]
    Ended(ReplayState),
    /// The end is not after the beginning.
    #[error("the range ends before it begins")]
    Range,
    /// Too many devices.
    #[error("{0} devices, allowed: at most {DEVICES_MAX}")]
    Devices(usize),
    /// Too many replays of one integration.
    #[error("{0} replays of the integration run, which is the limit")]
    TooMany(usize),
    /// The gateway does not forward yet, or no more.
    #[error("the gateway does not forward at the moment")]
    NotRunning,
    /// The message log. We are at fault.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The templates. We are at fault.
    #[error(transparent)]
    Templates(#[from] template_library::StoreError),
}

impl From<StoreError> for ReplayError {
    fn from(error: StoreError) -> Self {
        Self::Change(error.into())
    }
}

impl Integrations {
    /// A page of an integration's dead letters in the order of the log, from the number `skip` on,
    /// and how many there are in all.
    ///
    /// # Errors
    /// Where there is no such integration, or the file refuses.
    pub async fn dead_letters(
        &self,
        id: &str,
        filter: DeadLetterFilter,
        page: (usize, usize),
    ) -> Result<(Vec<DeadLetterEntry>, usize), ChangeError> {
        let id = self.found(id).await?.id;
        Ok(self.stored(move |store| store.dead_letters(&id, &filter, page)).await?)
    }

    /// Forgets dead letters; says how many. Their messages stay in the log.
    ///
    /// # Errors
    /// Where there is no such integration, or the file refuses.
    pub async fn forget_dead_letters(
        &self,
        id: &str,
        filter: DeadLetterFilter,
    ) -> Result<usize, ChangeError> {
        let id = self.found(id).await?.id;
        Ok(self.stored(move |store| store.forget_dead_letters(&id, &filter)).await?)
    }

    /// Delivers dead letters again. Says how many.
    ///
    /// # Errors
    /// Where there is no such integration, nothing to deliver, or the file refuses.
    pub async fn replay_dead_letters(
        &self,
        id: &str,
        filter: DeadLetterFilter,
    ) -> Result<(Replay, usize), ReplayError> {
        let (all, id) = (self.clone(), id.to_owned());
        self.change(|mut engine| async move {
            let new = all.new_replay(&id, ReplaySource::DeadLetters, Vec::new()).await?;
            let replay = new.id.clone();
            let letters = all.stored(move |store| store.insert_replay(&new, &filter)).await?;
            if letters == 0 {
                return Err(ReplayError::Nothing);
            }
            all.run_anew(&mut engine, &id).await?;
            Ok((all.replay(&replay).await?, letters))
        })
        .await
    }

    /// Delivers messages of the log again, with their ids, marked as replayed.
    ///
    /// # Errors
    /// Where there is no such integration, the request is not valid, or a file refuses.
    pub async fn start_replay(
        &self,
        id: &str,
        request: ReplayRequest,
    ) -> Result<Replay, ReplayError> {
        let log_source = self.0.engine.lock().await.source.clone();
        let log_source = log_source.ok_or(ReplayError::NotRunning)?;
        let versions =
            if request.newest_templates { active_versions(&log_source) } else { Vec::new() };
        // Before anybody else has to wait: it may read from the disk.
        let source = tokio::task::spawn_blocking(move || selection(&log_source, &request));
        let source = source.await.map_err(|_| StoreError::CutOff)??;
        let (all, id) = (self.clone(), id.to_owned());
        self.change(|mut engine| async move {
            let new = all.new_replay(&id, source, versions).await?;
            let replay = new.id.clone();
            let none = DeadLetterFilter::default();
            all.stored(move |store| store.insert_replay(&new, &none)).await?;
            all.run_anew(&mut engine, &id).await?;
            all.replay(&replay).await
        })
        .await
    }

    /// What [`Integrations::start_replay`] would deliver, up to `limits`. Delivers nothing.
    ///
    /// # Errors
    /// Where the request is not valid, or a file refuses.
    pub async fn preview(
        &self,
        request: ReplayRequest,
        limits: PreviewLimits,
    ) -> Result<Preview, ReplayError> {
        let source = self.0.engine.lock().await.source.clone().ok_or(ReplayError::NotRunning)?;
        let work = tokio::task::spawn_blocking(move || preview(&source, &request, limits));
        work.await.map_err(|_| StoreError::CutOff)?
    }

    /// All replays, the newest first; of one integration where it is named.
    ///
    /// # Errors
    /// Where the file refuses.
    pub async fn replays(&self, integration: Option<String>) -> Result<Vec<Replay>, StoreError> {
        self.stored(move |store| store.replays(integration.as_deref())).await
    }

    /// One replay.
    ///
    /// # Errors
    /// Where there is none, or the file refuses.
    pub async fn replay(&self, id: &str) -> Result<Replay, ReplayError> {
        let wanted = id.to_owned();
        let found = self.stored(move |store| store.replay(&wanted)).await?;
        found.ok_or_else(|| ReplayError::NotFound(id.to_owned()))
    }

    /// Ends a replay. What it has not delivered is not delivered by it any more.
    ///
    /// # Errors
    /// Where there is none, it has ended, or the file refuses.
    pub async fn cancel_replay(&self, id: &str) -> Result<Replay, ReplayError> {
        let (all, id) = (self.clone(), id.to_owned());
        self.change(|mut engine| async move {
            let replay = all.replay(&id).await?;
            let row = id.clone();
            if !all.stored(move |store| store.cancel_replay(&row, now())).await? {
                return Err(ReplayError::Ended(all.replay(&id).await?.state));
            }
            all.run_anew(&mut engine, &replay.integration).await?;
            all.replay(&id).await
        })
        .await
    }

    async fn new_replay(
        &self,
        integration: &str,
        source: ReplaySource,
        versions: Vec<(Protocol, u32)>,
    ) -> Result<NewReplay, ReplayError> {
        let integration = self.found(integration).await?.id;
        let replays = self.replays(Some(integration.clone())).await?;
        let running = replays.iter().filter(|replay| replay.state == ReplayState::Running).count();
        if running >= RUNNING_MAX {
            return Err(ReplayError::TooMany(running));
        }
        let id = nanoid().map_err(|error| StoreError::Random(error.to_string()))?;
        Ok(NewReplay { id, integration, source, versions, created_at: now() })
    }
}

/// The part of the log that a request is about. Blocks.
pub(crate) fn selection(
    source: &Source,
    request: &ReplayRequest,
) -> Result<ReplaySource, ReplayError> {
    let ReplayRequest { from, until, ref devices, .. } = *request;
    if devices.len() > DEVICES_MAX {
        return Err(ReplayError::Devices(devices.len()));
    }
    if from.zip(until).is_some_and(|(from, until)| from >= until) {
        return Err(ReplayError::Range);
    }
    let start = match from {
        Some(from) => place_before(source, from.saturating_sub(COMMIT_DELAY_MAX))?,
        None => source.log.oldest(),
    };
    let end = match until {
        Some(until) => place_before(source, until.saturating_add(COMMIT_DELAY_MAX))?,
        None => source.log.end(),
    };
    Ok(ReplaySource::Log {
        start: start.as_u64(),
        end: end.as_u64(),
        from,
        until,
        devices: devices.iter().map(|device| device.as_u64()).collect(),
    })
}

/// The place after the newest record that was received before `moment`.
fn place_before(source: &Source, moment: Timestamp) -> Result<Offset, ReadError> {
    let newest = source.log.newest(Query { until: Some(moment), limit: 1, ..Query::default() })?;
    Ok(newest.first().map_or_else(|| source.log.oldest(), |record| record.offset.next()))
}

/// The template that is active now for each protocol that has one.
pub(crate) fn active_versions(source: &Source) -> Vec<(Protocol, u32)> {
    [Protocol::Udp, Protocol::Coap, Protocol::Lwm2m]
        .into_iter()
        .filter_map(|protocol| Some((protocol, source.templates.active(protocol)?)))
        .collect()
}
