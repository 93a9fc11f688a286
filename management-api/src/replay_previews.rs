//! What a replay would make different, as it is shown.

use cloud_integrator::{Difference, Preview, PreviewCounts, Untranslatable};
use serde::Serialize;
use utoipa::ToSchema;

/// What a replay would make different. Nothing was delivered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayPreview {
    /// Whether all that was selected was looked at: a dry run ends after a million messages or ten
    /// seconds.
    complete: bool,
    /// How many messages are what.
    counts: ReplayPreviewCounts,
    /// Up to 20 messages that become something else.
    changed: Vec<ReplayDifference>,
    /// Up to 20 messages that could not be translated and now can.
    repaired: Vec<ReplayDifference>,
    /// Up to 20 messages that now cannot be translated.
    broken: Vec<ReplayDifference>,
    /// Up to 20 messages that can be translated neither way.
    failing: Vec<ReplayFailure>,
}

/// How many messages are what. Each is one of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayPreviewCounts {
    /// All messages that were looked at: the sum of the others.
    messages: u64,
    /// They are translated to the same.
    unchanged: u64,
    /// They become something else.
    changed: u64,
    /// They could not be translated and now can.
    repaired: u64,
    /// They now cannot be translated.
    broken: u64,
    /// They can be translated neither way.
    failing: u64,
    /// No template applies to them, then or now.
    raw: u64,
}

/// A message of which two templates make two things.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayDifference {
    /// The message's id.
    #[schema(example = "msg_01GM0H4V0Q0123456789ABCDEF")]
    id: String,
    /// Its device.
    #[schema(example = "8988280666000002864")]
    iccid: String,
    /// What it was: JSON as text, or why there was none; absent where no template applied. Long
    /// texts are cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "{\"temperature\":116}")]
    before: Option<String>,
    /// What it would be, in the same way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "{\"temperature\":11.6}")]
    after: Option<String>,
}

/// A message that no template can translate.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayFailure {
    /// The message's id.
    #[schema(example = "msg_01GM0H4V0Q0123456789ABCDEF")]
    id: String,
    /// Its device.
    #[schema(example = "8988280666000002864")]
    iccid: String,
    /// Why not.
    #[schema(example = "Asset path:longitude, Error: can't extract [0:8] from 1 bytes")]
    error: String,
}

impl From<Preview> for ReplayPreview {
    fn from(preview: Preview) -> Self {
        let Preview { complete, counts, changed, repaired, broken, failing } = preview;
        let shown = |list: Vec<Difference>| list.into_iter().map(ReplayDifference::from).collect();
        Self {
            complete,
            counts: counts.into(),
            changed: shown(changed),
            repaired: shown(repaired),
            broken: shown(broken),
            failing: failing.into_iter().map(ReplayFailure::from).collect(),
        }
    }
}

impl From<PreviewCounts> for ReplayPreviewCounts {
    fn from(counts: PreviewCounts) -> Self {
        let PreviewCounts { messages, unchanged, changed, repaired, broken, failing, raw } = counts;
        Self { messages, unchanged, changed, repaired, broken, failing, raw }
    }
}

impl From<Difference> for ReplayDifference {
    fn from(difference: Difference) -> Self {
        let Difference { id, iccid, before, after } = difference;
        Self { id: id.to_string(), iccid: iccid.to_string(), before, after }
    }
}

impl From<Untranslatable> for ReplayFailure {
    fn from(failure: Untranslatable) -> Self {
        let Untranslatable { id, iccid, error } = failure;
        Self { id: id.to_string(), iccid: iccid.to_string(), error }
    }
}
