//! What integrations of several kinds have in common beyond the documented API: how events are
//! delivered, and what TLS needs.

use std::fmt;
use std::time::Duration;

use cloud_integrator::{
    BatchOptions, ClientTls, DeliveryOptions, Integration, InvalidIntegration, Order, RetryProfile,
    parse_event_types,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::extract::present;
use crate::integrations::{WantedEventType, wanted};

/// How events are delivered. In a request, what is absent stays as it is, or has its default.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DeliveryChange {
    /// `device` (the default): an event of a device waits until the one before it is done; `none`:
    /// no event waits for another.
    #[schema(value_type = Option<String>, example = "device")]
    order: Option<Order>,
    /// `standard` (the default): 13 attempts in 75 hours, then a dead letter; `compat-1nce`: 5
    /// attempts in 29.5 minutes, then the integration has failed.
    #[schema(value_type = Option<String>, example = "standard")]
    retry: Option<RetryProfile>,
    /// Several events in one request, as a JSON array; `null` (the default) sends each alone.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Batch>)]
    batch: Option<Option<Batch>>,
    /// Attempts at the same time at most.
    #[schema(minimum = 1, maximum = 256)]
    concurrency_max: Option<usize>,
}

/// How events are delivered.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    /// `device` or `none`.
    #[schema(value_type = String, example = "device")]
    order: Order,
    /// `standard` or `compat-1nce`.
    #[schema(value_type = String, example = "standard")]
    retry: RetryProfile,
    /// Several events in one request; `null` where each goes alone.
    batch: Option<Batch>,
    /// Attempts at the same time at most.
    concurrency_max: usize,
}

/// Several events in one request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Batch {
    /// Events at most.
    #[schema(minimum = 1, maximum = 1_000)]
    events: usize,
    /// How long the oldest event waits for the batch to fill.
    #[schema(minimum = 0, maximum = 60_000)]
    wait_milliseconds: u64,
}

/// What TLS needs beside the system's authorities, in PEM. In a change, what is absent stays and
/// what is `null` is removed.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TlsChange {
    /// Authorities that the endpoint's certificate may come from, instead of the system's.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    roots: Option<Option<String>>,
    /// The certificate that the gateway shows, with its chain.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    certificate: Option<Option<String>>,
    /// The key of that certificate. It is never shown again.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    private_key: Option<Option<String>>,
}

/// What TLS needs beside the system's authorities, without the private key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tls {
    /// Authorities that the endpoint's certificate may come from, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    roots: Option<String>,
    /// The certificate that the gateway shows, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// Whether there is a private key.
    private_key: bool,
}

/// What can be changed of an integration of any kind; what is absent stays.
#[derive(Debug, Default)]
pub(crate) struct CommonChange {
    pub(crate) event_types: Option<Vec<WantedEventType>>,
    pub(crate) json_payload_enabled: Option<bool>,
    pub(crate) delivery: Option<DeliveryChange>,
}

impl CommonChange {
    pub(crate) fn make(self, integration: &mut Integration) -> Result<(), InvalidIntegration> {
        let Self { event_types, json_payload_enabled, delivery } = self;
        if let Some(list) = event_types {
            integration.event_types = parse_event_types(&wanted(list))?;
        }
        set(&mut integration.json_payload_enabled, json_payload_enabled);
        if let Some(change) = delivery {
            change.make(&mut integration.delivery);
        }
        Ok(())
    }
}

impl DeliveryChange {
    fn make(self, options: &mut DeliveryOptions) {
        let Self { order, retry, batch, concurrency_max } = self;
        set(&mut options.order, order);
        set(&mut options.retry, retry);
        set(&mut options.concurrency_max, concurrency_max);
        set(&mut options.batch, batch.map(|batch| batch.map(BatchOptions::from)));
    }

    /// The options of a new integration.
    pub(crate) fn options(change: Option<Self>) -> DeliveryOptions {
        Self::options_by(DeliveryOptions::default(), change)
    }

    /// The options of a new integration of a kind that has defaults of its own.
    pub(crate) fn options_by(
        mut options: DeliveryOptions,
        change: Option<Self>,
    ) -> DeliveryOptions {
        change.unwrap_or_default().make(&mut options);
        options
    }
}

impl TlsChange {
    pub(crate) fn make(self, tls: &mut ClientTls) {
        let Self { roots, certificate, private_key } = self;
        set(&mut tls.roots_pem, roots);
        set(&mut tls.certificate_pem, certificate);
        set(&mut tls.key_pem, private_key);
    }

    /// What a new integration has.
    pub(crate) fn tls(change: Option<Self>) -> ClientTls {
        let mut tls = ClientTls::default();
        change.unwrap_or_default().make(&mut tls);
        tls
    }
}

impl fmt::Debug for TlsChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsChange").finish_non_exhaustive()
    }
}

/// Changes `field` where there is something to change it to.
pub(crate) fn set<T>(field: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *field = new;
    }
}

impl From<Batch> for BatchOptions {
    fn from(Batch { events, wait_milliseconds }: Batch) -> Self {
        Self { events, wait: Duration::from_millis(wait_milliseconds) }
    }
}

impl From<DeliveryOptions> for Delivery {
    fn from(options: DeliveryOptions) -> Self {
        let DeliveryOptions { order, retry, batch, concurrency_max } = options;
        let batch = batch.map(|BatchOptions { events, wait }| Batch {
            events,
            // At most a minute.
            wait_milliseconds: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        });
        Self { order, retry, batch, concurrency_max }
    }
}

impl Tls {
    /// What is shown; nothing where there is nothing.
    pub(crate) fn shown(tls: ClientTls) -> Option<Self> {
        let private_key = tls.key_pem.is_some();
        let ClientTls { roots_pem: roots, certificate_pem: certificate, .. } = tls;
        (roots.is_some() || certificate.is_some() || private_key).then_some(Self {
            roots,
            certificate,
            private_key,
        })
    }
}
