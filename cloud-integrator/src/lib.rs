//! From the log to customers' clouds.
