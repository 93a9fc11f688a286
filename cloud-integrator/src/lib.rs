//! From the message log to customers' clouds, at least once.
//!
//! [`Integrations`] is what the management API works on: it keeps what customers configure and
//! runs one [`Forwarder`] for each integration. A forwarder reads the log from its own cursor,
//! keeps the order of each device and drives a [`Sink`]: [`WebhookSink`], [`MqttSink`],
//! [`AwsSink`] or [`EmailSink`].
//!
//! What it promises (docs/delivery.md, docs/integrations.md): every record that is wanted is
//! delivered at least once, in order per device, with the same id at every attempt; a slow or dead
//! endpoint delays no device and no other endpoint.
//!
//! What it is not: it decides nothing about messages, decodes nothing by itself and never writes
//! telemetry.

mod aws;
mod batch_id;
mod concurrency;
mod delivery_options;
mod email;
mod envelope;
mod event_type;
mod filter;
mod flow;
mod forwarder;
mod gate;
mod integration;
mod integrations;
mod lane;
mod lanes;
mod meters;
mod mqtt;
mod network;
mod placeholders;
mod policy;
mod position;
mod progress;
mod reading;
mod replay_preview;
mod schedule;
mod shares;
mod sink;
mod sinks;
mod store;
mod target;
mod tls;
mod webhook;
mod window;

pub use aws::{
    AwsAccess, AwsAccessError, AwsFailure, AwsKeys, AwsOptions, AwsRole, AwsSink, InvalidAws,
    failure_of,
};
pub use delivery_options::{
    BATCH_EVENTS_MAX, BATCH_WAIT_MAX, BatchOptions, CONCURRENCY_DEFAULT, CONCURRENCY_MAX,
    DeliveryOptions, InvalidDeliveryOptions, Order, RetryProfile,
};
pub use email::{
    EmailSink, InvalidEmail, MAILS_PER_HOUR, MailSecurity, MailSettings, Mailer, MailerError,
    RECIPIENTS_MAX,
};
pub use event_type::{CatalogueEntry, EVENT_VERSION, EventType, EventTypes, EventTypesError};
pub use forwarder::{Forwarder, ForwarderSettings, ForwarderStatus};
pub use gate::GateSettings;
pub use integration::{
    ChangeError, CreateError, Integration, IntegrationState, InvalidIntegration, NAME_CHARS_MAX,
    NewIntegration, TestReport, parse_event_types,
};
pub use integrations::{
    AwsRollout, Integrations, OpenError, ROLLOUT_TIME, ReplayError, ReplayRequest, Settings, Status,
};
pub use mqtt::{
    AWS_PAYLOAD_BYTES_MAX, AWS_PUBLISHES_PER_SECOND, AWS_TOPIC_BYTES_MAX, AWS_TOPIC_SLASHES_MAX,
    CLIENT_ID_BYTES_MAX, CONNECTIONS_MAX, MqttClient, MqttEndpoint, MqttEndpointError, MqttLimits,
    MqttPurpose, MqttSink, PAYLOAD_TEMPLATE_BYTES_MAX, PayloadError, TOPIC_BYTES_MAX, TopicProblem,
    TopicsError,
};
pub use network::{
    ADDRESSES_MAX, Blocked, LOOKUP_TIMEOUT, Network, NetworkPolicy, NetworkTextError, ResolveError,
    Resolver,
};
pub use policy::{Exhausted, RetryPolicy};
pub use reading::{Source, Subscription};
pub use replay_preview::{
    Difference, Preview, PreviewCounts, PreviewLimits, SAMPLE_CHARS_MAX, Untranslatable,
};
pub use schedule::Schedule;
pub use sink::{
    ANSWER_CHARS_MAX, Answer, DELIVERY_TIMEOUT, Delivery, Failure, FailureClass, Outcome, Sink,
    Subject,
};
pub use store::{
    Bookmark, DEAD_LETTERS_MAX, DeadLetterEntry, DeadLetterFilter, Replay, ReplayState, SEALED_FOR,
    Store, StoreError,
};
pub use target::{
    AwsTarget, AwsTransport, ClientTls, EmailTarget, MqttTarget, Target, WebhookTarget,
};
pub use tls::{TlsError, authorities};
pub use webhook::{
    ClientError, Endpoint, EndpointError, HEADER_BYTES_MAX, HEADERS_MAX, ShownKey, Signing,
    SigningError, SigningKind, URL_BYTES_MAX, WebhookClient, WebhookError, WebhookSink,
};
pub use window::WindowLimits;
