//! Walking the log from its newest record to older ones.

use message_log::{MessageLog, Query, ReadError, Record};

/// How often one chunk is asked for when retention deletes under the question. It deletes one
/// segment at a time, once an hour as a rule.
const ATTEMPTS: usize = 3;

/// A walk over what a query asks for, chunk by chunk; the query's limit is the size of a chunk.
pub(crate) struct Backward<'a> {
    log: &'a MessageLog,
    query: Query,
}

impl<'a> Backward<'a> {
    /// Begins where `query` begins.
    pub(crate) fn new(log: &'a MessageLog, query: Query) -> Self {
        Self { log, query }
    }

    /// The next chunk, newest first; empty at the end. A chunk can be smaller than the limit
    /// although more follow.
    pub(crate) fn chunk(&mut self) -> Result<Vec<Record>, ReadError> {
        let mut attempts = 0;
        let records = loop {
            attempts += 1;
            match self.log.newest(self.query) {
                Ok(records) => break records,
                // What would come next was deleted: this is the end.
                Err(ReadError::Overtaken { oldest })
                    if self.query.before.is_some_and(|before| before <= oldest) =>
                {
                    return Ok(Vec::new());
                }
                Err(ReadError::Overtaken { .. }) if attempts < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        };
        if let Some(last) = records.last() {
            self.query.before = Some(last.offset);
        }
        Ok(records)
    }

    /// The size of the chunks from here on.
    pub(crate) fn set_chunk(&mut self, records: usize) {
        self.query.limit = records;
    }
}
