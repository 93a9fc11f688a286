//! What happened: history, last state per protocol, insights, statistics, administration log.
//!
//! Two halves. The [`Reader`] follows the message log with a cursor of its own, remembers the last
//! message per device and protocol, counts messages per hour, and says in the administration log
//! what an operator should know: a device's first message, and messages that their template
//! cannot translate. The [`Inspector`] answers queries, from the log and from what the reader
//! has learnt. It knows no HTTP; its words are those of the documented API.
//!
//! Queries block on files: an asynchronous caller puts them on a thread for blocking work.

mod administration;
mod backward;
mod day_stats;
mod history;
mod insights;
mod last_state;
mod notices;
mod reader;
mod tables;
mod token;
mod translation;
mod twin;
mod unflushed;
mod window;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use message_log::MessageLog;
use state::StateFile;
use template_library::Templates;

pub use administration::{LOG_PAGE_MAX, LogItem, LogPage, LogPayloadError, LogQuery, LogsError};
pub use day_stats::{DayAmount, LogStats, StatsError};
pub use history::{HistoryError, HistoryItem, HistoryQuery, MessageError, MessageView, Page};
pub use insights::{Insight, InsightsError, InsightsQuery, Interval, UnknownInterval};
pub use last_state::{ProtocolState, StateError, state_to_json};
pub use notices::{FIRST_CONTACT, STATE_TOO_LARGE, TRANSLATION_FAILED};
pub use reader::{Reader, ReaderError, ReaderProgress, ReaderThread};
pub use tables::OpenError;
pub use token::{PageToken, TokenError};
pub use translation::{PayloadText, TemplateChoice, Translation};
pub use window::{BackwardWindow, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PageSizeError};

/// The largest payload that is kept as a device's state: the limit of 1NCE OS.
pub const STATE_BYTES_MAX: usize = 8_192;

/// The customer of a gateway that was not told one.
const CUSTOMER_ID_DEFAULT: &str = "1";

/// Answers queries about what happened. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inspector(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    state: StateFile,
    log: MessageLog,
    templates: Templates,
    customer_id: String,
    tables: Mutex<tables::Tables>,
    recent: reader::SharedRecent,
}

impl Inspector {
    /// Opens the inspector's tables in the state file.
    pub fn open(
        state: &StateFile,
        log: MessageLog,
        templates: Templates,
    ) -> Result<Self, OpenError> {
        Self::open_for_customer(state, log, templates, CUSTOMER_ID_DEFAULT)
    }

    /// The same for a gateway of a named customer: `customer_id` stands in the entries of the
    /// administration log.
    pub fn open_for_customer(
        state: &StateFile,
        log: MessageLog,
        templates: Templates,
        customer_id: &str,
    ) -> Result<Self, OpenError> {
        let tables = Mutex::new(tables::Tables::open(state)?);
        let (state, recent) = (state.clone(), reader::SharedRecent::new());
        let customer_id = customer_id.to_owned();
        Ok(Self(Arc::new(Parts { state, log, templates, customer_id, tables, recent })))
    }

    /// The reader that goes on where the last one stopped. There must be only one at a time.
    pub fn reader(&self) -> Result<Reader, OpenError> {
        let tables = tables::Tables::open_for_reader(&self.0.state)?;
        let (log, templates) = (self.0.log.clone(), self.0.templates.clone());
        Reader::new(log, templates, tables, self.0.recent.clone())
    }

    /// What the reader has done.
    pub fn progress(&self) -> ReaderProgress {
        self.0.recent.progress()
    }

    fn log(&self) -> &MessageLog {
        &self.0.log
    }

    fn templates(&self) -> &Templates {
        &self.0.templates
    }

    fn customer_id(&self) -> &str {
        &self.0.customer_id
    }

    fn recent(&self) -> &reader::SharedRecent {
        &self.0.recent
    }

    /// The connection for queries. A panic of another query leaves no transaction open.
    fn tables(&self) -> MutexGuard<'_, tables::Tables> {
        self.0.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
