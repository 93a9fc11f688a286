//! The customer's templates: which are active, and every version that a stored message was
//! received under.
//!
//! A message in the log names the version of the template that was active when it arrived. So
//! versions are immutable: a changed source is a new version, and deleting a template keeps its
//! versions. Each protocol has at most one template.
//!
//! [`Templates`] is shared by the ingest, which asks for the active version and never waits, by the
//! log's readers, which translate, and by the management API, which changes. Changes made by
//! another process are seen after a restart.

mod catalogue;
mod filter;
mod program_cache;
mod store;
mod template;
mod template_id;
mod translate;

pub use catalogue::{OpenError, TemplateError, Templates};
pub use filter::{FilterError, ProtocolFilter};
pub use store::StoreError;
pub use template::{NAME_CHARS_MAX, NewTemplate, Patch, Status, Template, UnknownStatus};
pub use template_id::TemplateId;
pub use translate::{TranslateError, Translation};

/// Most versions that are kept, over all templates: at 64 KiB each, 256 MiB.
/// [`Templates::forget`] makes room.
pub const VERSIONS_MAX: u32 = 4_096;
