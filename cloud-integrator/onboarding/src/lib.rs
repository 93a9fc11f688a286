//! Devices get certificates of AWS IoT Core, so that they can speak to it without the gateway.
//!
//! For each SIM: keys and a certificate, a Thing with the ICCID as its name, and one policy for
//! all, which lets a device connect under the name of its Thing and use the topics below that
//! name (docs/aws.md). [`Onboarding`] keeps what has to be done in the state file and does it step
//! by step; each step is recorded before the next, so that a crash in between repeats at most one.
//! A certificate becomes active at the last step alone, so that one whose answer was lost never
//! opens anything.
//!
//! Not here: who asks for it (the gateway), and how a device fetches what was made for it (the
//! HTTP API).

mod cloud;
mod onboarding;
mod settings;
mod steps;
mod store;
mod worker;

pub use onboarding::{Credentials, Found, Happening, Onboarding, OpenError, Status, Stuck};
pub use settings::{AMAZON_ROOT_CA_PEM, AMAZON_ROOT_CA_URL, OnboardingSettings};
pub use store::StoreError;

/// For [`sealing::Sealer::open`].
pub const SEALED_FOR: &str = "simgate aws certificates";
