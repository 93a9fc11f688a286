//! What all MQTT integrations share, and the sink of one of them.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Publish, PublishProperties};
use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::connection::{Connection, Traffic};
use super::endpoint::{Allowed, MqttEndpoint, MqttEndpointError};
use super::pace::Connects;
use super::payload::Form;
use super::session::Job;
use crate::network::Resolver;
use crate::sink::{DELIVERY_TIMEOUT, Delivery, Failure, FailureClass, Outcome, Sink};
use crate::target::{AwsTarget, MqttTarget};

/// Events that wait for one connection before calls wait for each other.
const JOBS_MAX: usize = 1_024;
/// The name of an event's id in the properties, as in the headers of a webhook.
const ID_PROPERTY: &str = "webhook-id";

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MqttLimits {
    /// An attempt to deliver, in all.
    pub attempt: Duration,
    /// A new session: look-up, TCP, TLS and CONNACK.
    pub connect: Duration,
    /// The pause after a session that ended; also the least time between two CONNECTs of a client.
    pub pause_min: Duration,
    /// That pause doubles up to this.
    pub pause_max: Duration,
    /// The longest silence before the broker is asked whether it is there.
    pub keep_alive: Duration,
    /// Events without PUBACK on a connection at most; fewer where the broker grants fewer.
    pub in_flight: u16,
}

impl Default for MqttLimits {
    /// AWS IoT Core takes 100 publishes without PUBACK from a client, one CONNECT per second and
    /// client id, and keep-alives of 30 s and more.
    fn default() -> Self {
        Self {
            attempt: DELIVERY_TIMEOUT,
            connect: Duration::from_secs(10),
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
            keep_alive: Duration::from_secs(30),
            in_flight: 100,
        }
    }
}

/// What all MQTT integrations share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MqttClient(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) resolver: Resolver,
    pub(super) limits: MqttLimits,
    extra_roots: Vec<CertificateDer<'static>>,
    connects: Mutex<Connects>,
}

/// What a sink is for. Each has client ids of its own, so that a test does not end the session of
/// the integration that it tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttPurpose {
    /// To deliver for as long as the integration runs.
    Run,
    /// To deliver one TEST_MESSAGE.
    Test,
}

/// One MQTT integration. Cheap to clone; its connections end when the last clone is dropped.
#[derive(Clone)]
pub struct MqttSink(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    endpoint: Arc<MqttEndpoint>,
    lines: Vec<Line>,
}

/// A connection as the sink sees it.
struct Line {
    client_id: String,
    traffic: Arc<Traffic>,
    /// Made at the first event.
    open: OnceLock<OpenLine>,
}

struct OpenLine {
    jobs: mpsc::Sender<Job>,
    /// Tells the connection that the sink was dropped.
    _dropped: oneshot::Sender<()>,
}

impl Shared {
    /// The moment at which a client may connect.
    pub(super) fn book(&self, name: &str) -> Instant {
        // A panic elsewhere cannot leave it half-changed.
        let mut connects = self.connects.lock().unwrap_or_else(PoisonError::into_inner);
        connects.book(name, self.limits.pause_min, Instant::now())
    }
}

impl MqttClient {
    /// A client that reaches what `resolver` allows. `extra_roots` are trusted beside the system's
    /// authorities.
    pub fn new(
        resolver: Resolver,
        extra_roots: Vec<CertificateDer<'static>>,
        limits: MqttLimits,
    ) -> Self {
        let connects = Mutex::default();
        Self(Arc::new(Shared { resolver, limits, extra_roots, connects }))
    }

    /// Checks the target of integration `id`.
    ///
    /// # Errors
    /// Where a field is not valid.
    pub fn endpoint(
        &self,
        target: &MqttTarget,
        id: &str,
    ) -> Result<MqttEndpoint, MqttEndpointError> {
        MqttEndpoint::broker(target, id, self.allowed())
    }

    /// Checks the target of integration `id`, whose transport is MQTT.
    ///
    /// # Errors
    /// Where a field is not valid.
    pub fn aws_endpoint(
        &self,
        target: &AwsTarget,
        id: &str,
    ) -> Result<MqttEndpoint, MqttEndpointError> {
        MqttEndpoint::aws(target, id, self.allowed())
    }

    /// A sink that publishes to `endpoint`. It connects when it has something to deliver.
    pub fn sink(&self, endpoint: MqttEndpoint, purpose: MqttPurpose) -> MqttSink {
        let base = &endpoint.client_id;
        let ids: Vec<String> = match purpose {
            MqttPurpose::Run => (1..=endpoint.connections).map(|n| format!("{base}-{n}")).collect(),
            // Of its own each time: two tests at once would end each other's session. Without
            // randomness that is all that is lost.
            MqttPurpose::Test => {
                vec![format!("{base}-test-{:08x}", getrandom::u32().unwrap_or_default())]
            }
        };
        let line = |client_id| Line { client_id, traffic: Arc::default(), open: OnceLock::new() };
        MqttSink(Arc::new(Inner {
            shared: Arc::clone(&self.0),
            lines: ids.into_iter().map(line).collect(),
            endpoint: Arc::new(endpoint),
        }))
    }

    fn allowed(&self) -> Allowed<'_> {
        Allowed { policy: self.0.resolver.policy(), extra_roots: &self.0.extra_roots }
    }
}

impl Sink for MqttSink {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        let mut publishes = Vec::with_capacity(events.len());
        for event in &events {
            match self.0.publish(event) {
                Ok(publish) => publishes.push(publish),
                Err(outcome) => return outcome,
            }
        }
        let limit = self.0.shared.limits.attempt;
        match timeout(limit, self.0.send(publishes)).await {
            Ok(Ok(())) => Outcome::Delivered,
            Ok(Err(reason)) => Outcome::Retry { reason, after: None },
            Err(_) => {
                let text = format!("no PUBACK within {} ms", limit.as_millis());
                Outcome::Retry { reason: Failure::new(FailureClass::Timeout, text), after: None }
            }
        }
    }
}

impl Inner {
    fn publish(&self, event: &Delivery) -> Result<Publish, Outcome> {
        let topic = self.endpoint.topics.name(event).map_err(|problem| {
            let text = format!("the topic of this event {problem}");
            Outcome::Rejected { reason: Failure::new(FailureClass::Request, text) }
        })?;
        let made = self.endpoint.payload.make(event);
        let bytes = made.bytes.len();
        if let Some(limit) = self.endpoint.payload_bytes_max.filter(|limit| bytes > *limit) {
            let text = format!("payload of {bytes} bytes exceeds the limit of {limit}");
            let reason = Failure::new(FailureClass::TooLarge, text);
            return Err(Outcome::Retry { reason, after: None });
        }
        let content_type = match made.form {
            Form::Json => Some("application/json".to_owned()),
            Form::Text | Form::Bytes => None,
        };
        let properties = PublishProperties {
            payload_format_indicator: (made.form != Form::Bytes).then_some(1),
            content_type,
            user_properties: vec![(ID_PROPERTY.to_owned(), event.id.to_string())],
            ..PublishProperties::default()
        };
        Ok(Publish::new(topic, QoS::AtLeastOnce, made.bytes, Some(properties)))
    }

    /// Sends all on one connection, in their order, and waits for all.
    async fn send(&self, publishes: Vec<Publish>) -> Result<(), Failure> {
        let Some(line) = self.line() else { return Err(ended()) };
        let _counted = Counted::new(&line.traffic, publishes.len());
        let jobs = self.open(line);
        let mut answers = Vec::with_capacity(publishes.len());
        for publish in publishes {
            let (reply, answer) = oneshot::channel();
            jobs.send(Job { publish, reply }).await.map_err(|_| ended())?;
            answers.push(answer);
        }
        let mut result = Ok(());
        for answer in answers {
            let answer = answer.await.unwrap_or_else(|_| Err(ended()));
            result = result.and(answer);
        }
        result
    }

    /// The connection with the least to do; one without a session only where no other has one.
    fn line(&self) -> Option<&Line> {
        self.lines.iter().min_by_key(|line| {
            let down = line.traffic.down.load(Ordering::Relaxed);
            (down, line.traffic.load.load(Ordering::Relaxed))
        })
    }

    fn open<'a>(&self, line: &'a Line) -> &'a mpsc::Sender<Job> {
        let open = line.open.get_or_init(|| {
            let (jobs, taken) = mpsc::channel(JOBS_MAX);
            let (_dropped, dropped) = oneshot::channel();
            let connection = Connection {
                shared: Arc::clone(&self.shared),
                endpoint: Arc::clone(&self.endpoint),
                client_id: line.client_id.clone(),
                traffic: Arc::clone(&line.traffic),
                jobs: taken,
                dropped,
            };
            tokio::spawn(connection.run());
            OpenLine { jobs, _dropped }
        });
        &open.jobs
    }
}

/// Counts events as long as their call runs, also where it is dropped.
struct Counted<'a> {
    traffic: &'a Traffic,
    count: usize,
}

impl<'a> Counted<'a> {
    fn new(traffic: &'a Traffic, count: usize) -> Self {
        traffic.load.fetch_add(count, Ordering::Relaxed);
        Self { traffic, count }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.traffic.load.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// The connection's task is gone, which only a fault of ours or the end of the runtime explains.
fn ended() -> Failure {
    Failure::new(FailureClass::Transport, "the connection was cut off")
}

impl fmt::Debug for MqttSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MqttSink")
            .field("endpoint", &self.0.endpoint)
            .finish_non_exhaustive()
    }
}
