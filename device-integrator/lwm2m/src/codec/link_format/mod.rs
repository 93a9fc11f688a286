//! The CoRE link format (RFC 6690) of registrations (LwM2M Core 1.1 §6.2.1) and of answers to
//! Discover (§6.3.2, §5.4.2).

mod attributes;
mod discovered;
mod objects;
mod scanner;

pub use attributes::{Attribute, Attributes};
pub use discovered::{DiscoveredLink, parse_discover};
pub use objects::{ObjectLinks, ObjectVersion, RegisteredObject, parse, write};
pub use scanner::LinkFormatError;
