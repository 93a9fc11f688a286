//! Signatures of webhooks, as Standard Webhooks defines them.

use serde::{Deserialize, Serialize};

/// What the requests of a webhook are signed with.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signing {}
