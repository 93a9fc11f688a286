//! Templates: compact payload to JSON.
