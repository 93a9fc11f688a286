//! Where devices arrive: sockets, the listeners for plain UDP, CoAP and CoAP over DTLS, and the
//! border ([`Uplink`], [`Receipt`]) to the rest of the gateway.
//!
//! It knows no SIM and no store: what becomes of an uplink is decided by the [`Ingest`] that it is
//! given, and answered to the device by the same exchange.
//!
//! Each core has one thread with one socket of every listener, so that all datagrams of one device
//! meet the same protocol state and no lock stands on their way.

mod alarm;
mod bootstrap;
mod clear_listener;
mod coap_service;
mod counters;
mod drops;
mod listeners;
mod lwm2m_service;
mod orders;
mod oversized;
mod plain;
mod resource;
mod routes;
mod secure_listener;
mod service;
mod sessions;
mod spread;
mod stateless;
mod stranger;
mod udp;
mod uplink;

pub use bootstrap::Credentials;
pub use listeners::{
    BindError, CoapLimits, ListenerConfig, Listeners, ListenersConfig, Lwm2mParts, Running,
    SavedSessions, SecureConfig, Speaks,
};
pub use orders::{Downlink, Order, OrderEnd, What};
pub use uplink::{
    Exchange, FailedHandshake, Ingest, KeyAccount, Peer, ProvenKey, Receipt, Refused,
    RegistrationChange, Rider, ServerKey, Shed, Uplink,
};
