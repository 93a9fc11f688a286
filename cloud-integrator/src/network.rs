//! Which addresses the gateway reaches for its customers, and how it finds them.
//!
//! A customer chooses the host of a webhook or of a broker, so it could choose one that only the
//! gateway can reach: a database behind it, the metadata service of its cloud. So only addresses
//! of the public Internet are reached, unless the operator allows more. What counts is the address
//! at the moment of connecting: a name that was harmless when it was configured may have another
//! address later (DNS rebinding), so every look-up is judged anew.
//!
//! What it is not: it opens no connections, and it knows nothing of HTTP or MQTT.

mod address;
mod host;
mod policy;
mod resolver;
mod servers;

pub use policy::{Blocked, Network, NetworkPolicy, NetworkTextError};
pub use resolver::{ADDRESSES_MAX, LOOKUP_TIMEOUT, ResolveError, Resolver};
