//! The management API: HTTP for customers and operators, wire-compatible with the documented API
//! of 1NCE OS for the paths that it has.
//!
//! One file per resource; each knows its paths and the shapes of their bodies, and asks a domain
//! crate for the rest. What they share: [`server`] (connections and their limits), tokens and
//! [`clients`], errors, pages, times. The document of all paths is made from the handlers
//! ([`openapi_json`]) and checked in as `openapi.json`.
//!
//! What it is not: it stores nothing of its own but clients, signing keys and the account's
//! switches, decides nothing about messages, and never calls a customer.

pub mod clients;
pub mod server;

mod access;
mod action_bodies;
mod action_requests;
mod actions;
mod administration_logs;
mod api;
mod aws_integrations;
mod aws_template;
mod connection;
mod data_sessions;
mod dead_letters;
mod devices;
mod email_integrations;
mod endpoints;
mod error;
mod extract;
mod feeds;
mod firmware_images;
mod firmware_jobs;
mod geofences;
mod geolocation;
mod history;
mod integration_details;
mod integration_errors;
mod integration_options;
mod integration_pauses;
mod integration_status;
mod integration_trials;
mod integrations;
mod links;
mod messages;
mod mqtt_integrations;
mod oauth;
mod onboarding;
mod openapi;
mod operations;
mod paging;
mod positions;
mod psk;
mod registrations;
mod replay_previews;
mod replays;
mod services;
mod settings;
mod sim_import;
mod sims;
mod switches;
mod templates;
mod throttle;
mod times;
mod tls;
mod tokens;
mod upload;
mod webhook_signing;
mod webhooks;

pub use api::ManagementApi;
pub use feeds::{FeedState, Feeds, Storing, StreamAccess};
pub use onboarding::{
    DeviceCertificate, DeviceCertificates, DeviceSim, DeviceSims, OnboardingServices,
    onboarding_router,
};
pub use openapi::openapi_json;
pub use registrations::Registration;
pub use services::{DeviceEndpoint, MetricsText, Readiness, Registrations, Services, Settings};
pub use switches::{OpenSwitchesError, Switch, Switches};
pub use throttle::Rate;
pub use tls::TlsError;
