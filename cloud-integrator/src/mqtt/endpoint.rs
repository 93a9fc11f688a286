//! Where an MQTT integration goes: broker, names, topics and payloads, checked once.

use std::fmt;
use std::sync::Arc;

use reqwest::Url;
use rumqttc::mqttbytes::v5::ConnectAuth;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use thiserror::Error;

use super::payload::{Payload, PayloadError};
use super::topics::{Rules, Topics, TopicsError};
use crate::network::{Blocked, NetworkPolicy};
use crate::target::{AwsTarget, AwsTransport, ClientTls, MqttTarget};
use crate::tls::{TlsError, client_config};

/// The port of MQTT over TLS (IANA).
const TLS_PORT: u16 = 8_883;
/// The port of plain MQTT (IANA).
const PLAIN_PORT: u16 = 1_883;
/// AWS IoT Core speaks MQTT on the port of HTTPS to who says so in ALPN.
const HTTPS_PORT: u16 = 443;
/// The protocol's name in ALPN, from the developer guide of AWS IoT Core.
const AWS_ALPN: &[u8] = b"x-amzn-mqtt-ca";
/// Ports that are reached without an operator's word.
const USUAL_PORTS: [u16; 2] = [TLS_PORT, HTTPS_PORT];
/// The longest URL, as for webhooks.
const URL_BYTES_MAX: usize = 2_048;
/// The longest client id before its number; AWS IoT Core takes 128 bytes in all.
pub const CLIENT_ID_BYTES_MAX: usize = 100;
/// The longest user name and the longest password: the length of a field of MQTT has two bytes.
const CREDENTIAL_BYTES_MAX: usize = 65_535;
/// The most connections of one integration: at 90/s each they carry 1,440 events per second to
/// AWS; a broker without such a quota is not faster with more than a few.
pub const CONNECTIONS_MAX: usize = 16;
/// The default of AWS for publishes per second and connection is 100; ten of them stay free.
pub const AWS_PUBLISHES_PER_SECOND: u32 = 90;
/// The largest payload of AWS IoT Core: 128 KB.
pub const AWS_PAYLOAD_BYTES_MAX: usize = 131_072;

/// A checked target. `Debug` shows the broker alone.
#[derive(Clone)]
pub struct MqttEndpoint {
    pub(super) host: String,
    pub(super) port: u16,
    /// The name that the broker's certificate must have, and how it is asked for; `None` is plain.
    pub(super) tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    /// The client id before the number of its connection.
    pub(super) client_id: String,
    pub(super) auth: ConnectAuth,
    pub(super) topics: Topics,
    pub(super) payload: Payload,
    pub(super) payload_bytes_max: Option<usize>,
    pub(super) connections: usize,
    pub(super) publishes_per_second: Option<u32>,
    pub(super) aws: bool,
}

/// What the gateway allows, and trusts beside the system's authorities.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed<'a> {
    pub(super) policy: &'a NetworkPolicy,
    pub(super) extra_roots: &'a [CertificateDer<'static>],
}

/// Why a target is refused. The customer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MqttEndpointError {
    /// Longer than allowed.
    #[error("url of {0} bytes exceeds the limit of {URL_BYTES_MAX}")]
    UrlTooLong(usize),
    /// Not a URL.
    #[error("url is not valid: {0}")]
    Url(String),
    /// Another protocol.
    #[error("url has scheme {0:?}, allowed: mqtts")]
    Scheme(String),
    /// Without TLS to where that is not allowed.
    #[error("url has scheme \"mqtt\" without TLS, allowed: mqtts")]
    Plain,
    /// MQTT over WebSocket.
    #[error("url has scheme {0:?}: MQTT over WebSocket is not supported, use mqtts://host:8883")]
    WebSocket(String),
    /// A user name or a password in the URL.
    #[error("url holds user information, use username and password instead")]
    UserInfo,
    /// More than a host and a port.
    #[error("url holds more than host and port, allowed: mqtts://host:port")]
    Path,
    /// Not a name that a certificate could have.
    #[error("host {0:?} is not a name or an address")]
    Host(String),
    /// A client id that brokers refuse.
    #[error("client id {0:?}, allowed: 1 to {CLIENT_ID_BYTES_MAX} visible ascii characters")]
    ClientId(String),
    /// A password without a user name.
    #[error("password without username")]
    PasswordAlone,
    /// Longer than MQTT can say.
    #[error("{0} has more than {CREDENTIAL_BYTES_MAX} bytes, or a NUL")]
    Credential(&'static str),
    /// Too many connections.
    #[error("{0} connections, allowed: 1 to {CONNECTIONS_MAX}")]
    Connections(usize),
    /// No publish at all.
    #[error("publishes per second is 0, allowed: 1 and more, or none for no limit")]
    Rate,
    /// No host of AWS IoT Core.
    #[error(
        "endpoint is missing: the host that `aws iot describe-endpoint --endpoint-type iot:Data-ATS` tells"
    )]
    AwsEndpoint,
    /// A port that is not the transport's.
    #[error("endpoint has port {found}, allowed: {port}, the port of the transport, or none")]
    AwsPort {
        /// That of the endpoint.
        found: u16,
        /// That of the transport.
        port: u16,
    },
    /// No certificate for AWS IoT Core.
    #[error("{0} is missing: AWS IoT Core knows MQTT clients by their certificate")]
    AwsCertificate(&'static str),
    /// A target that is not for MQTT.
    #[error("the transport is not MQTT")]
    NotMqtt,
    /// The topics.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// The payload.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A host or a port that the gateway must not reach.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl MqttEndpoint {
    /// Checks the target of integration `id`.
    pub(super) fn broker(
        target: &MqttTarget,
        id: &str,
        allowed: Allowed<'_>,
    ) -> Result<Self, MqttEndpointError> {
        let url = parse_url(&target.url)?;
        let secure = url.scheme() == "mqtts";
        let host = host_of(&url)?;
        if !secure && !allowed.policy.allows_plain(&host) {
            return Err(MqttEndpointError::Plain);
        }
        let port = url.port().unwrap_or(if secure { TLS_PORT } else { PLAIN_PORT });
        allowed.policy.check(&host, port, &USUAL_PORTS)?;
        let tls = if secure { Some(tls(&host, &target.tls, allowed, &[])?) } else { None };
        if target.publishes_per_second == Some(0) {
            return Err(MqttEndpointError::Rate);
        }
        Ok(Self {
            host,
            port,
            tls,
            client_id: client_id(target.client_id.as_deref(), id)?,
            auth: auth(target)?,
            topics: Topics::compile(&target.topics, Rules::Mqtt)?,
            payload: Payload::compile(target.payload.as_deref())?,
            payload_bytes_max: None,
            connections: connections(target.connections)?,
            publishes_per_second: target.publishes_per_second,
            aws: false,
        })
    }

    /// Checks the target of integration `id`.
    pub(super) fn aws(
        target: &AwsTarget,
        id: &str,
        allowed: Allowed<'_>,
    ) -> Result<Self, MqttEndpointError> {
        let AwsTransport::Mqtt { tls: own, port, connections: wanted } = &target.transport else {
            return Err(MqttEndpointError::NotMqtt);
        };
        let endpoint = target.endpoint.as_deref().filter(|host| !host.is_empty());
        let endpoint = endpoint.ok_or(MqttEndpointError::AwsEndpoint)?;
        if own.certificate_pem.is_none() {
            return Err(MqttEndpointError::AwsCertificate("certificate"));
        }
        if own.key_pem.is_none() {
            return Err(MqttEndpointError::AwsCertificate("key"));
        }
        let url = parse_url(&format!("mqtts://{endpoint}"))?;
        let host = host_of(&url)?;
        let port = if *port == 0 { TLS_PORT } else { *port };
        if let Some(found) = url.port().filter(|found| *found != port) {
            return Err(MqttEndpointError::AwsPort { found, port });
        }
        allowed.policy.check(&host, port, &USUAL_PORTS)?;
        let alpn: &[&[u8]] = if port == HTTPS_PORT { &[AWS_ALPN] } else { &[] };
        Ok(Self {
            tls: Some(tls(&host, own, allowed, alpn)?),
            host,
            port,
            client_id: client_id(None, id)?,
            auth: ConnectAuth::None,
            topics: Topics::compile(&Default::default(), Rules::Aws)?,
            payload: Payload::Event,
            payload_bytes_max: Some(AWS_PAYLOAD_BYTES_MAX),
            connections: connections(*wanted)?,
            publishes_per_second: Some(AWS_PUBLISHES_PER_SECOND),
            aws: true,
        })
    }

    /// Broker and client in one spelling: two integrations with the same would take each other's
    /// session.
    pub fn canonical(&self) -> String {
        self.session_name(&self.client_id)
    }

    /// The one session that a client can have with the broker.
    pub(super) fn session_name(&self, client_id: &str) -> String {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        format!("{scheme}://{}:{}#{client_id}", self.host, self.port)
    }
}

fn parse_url(text: &str) -> Result<Url, MqttEndpointError> {
    if text.len() > URL_BYTES_MAX {
        return Err(MqttEndpointError::UrlTooLong(text.len()));
    }
    // What the parser would silently remove is a mistake, or an attempt at one.
    if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
        return Err(MqttEndpointError::Url("white space or control character".to_owned()));
    }
    let url = Url::parse(text).map_err(|error| MqttEndpointError::Url(error.to_string()))?;
    match url.scheme() {
        "mqtts" | "mqtt" => {}
        "ws" | "wss" => return Err(MqttEndpointError::WebSocket(url.scheme().to_owned())),
        other => return Err(MqttEndpointError::Scheme(other.to_owned())),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(MqttEndpointError::UserInfo);
    }
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
    if is_bare && url.fragment().is_none() { Ok(url) } else { Err(MqttEndpointError::Path) }
}

/// The host without the brackets of an IPv6 address.
fn host_of(url: &Url) -> Result<String, MqttEndpointError> {
    let host = url.host_str().unwrap_or_default();
    // A dot at the end makes no other name (RFC 1034 §3.1).
    let bare = host.strip_suffix('.').unwrap_or(host);
    let literal = bare.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    match ServerName::try_from(literal.as_str()) {
        Ok(_) => Ok(literal),
        Err(_) => Err(MqttEndpointError::Host(host.chars().take(64).collect())),
    }
}

fn tls(
    host: &str,
    own: &ClientTls,
    allowed: Allowed<'_>,
    alpn: &[&[u8]],
) -> Result<(ServerName<'static>, Arc<ClientConfig>), MqttEndpointError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| MqttEndpointError::Host(host.to_owned()))?;
    Ok((name, client_config(own, allowed.extra_roots, alpn)?))
}

fn client_id(wanted: Option<&str>, id: &str) -> Result<String, MqttEndpointError> {
    let Some(wanted) = wanted else { return Ok(format!("simgate-{id}")) };
    let visible = wanted.bytes().all(|byte| byte.is_ascii_graphic());
    if wanted.is_empty() || wanted.len() > CLIENT_ID_BYTES_MAX || !visible {
        return Err(MqttEndpointError::ClientId(wanted.chars().take(64).collect()));
    }
    Ok(wanted.to_owned())
}

fn auth(target: &MqttTarget) -> Result<ConnectAuth, MqttEndpointError> {
    let fits = |text: &String| text.len() <= CREDENTIAL_BYTES_MAX && !text.contains('\0');
    if !target.username.as_ref().is_none_or(fits) {
        return Err(MqttEndpointError::Credential("username"));
    }
    if !target.password.as_ref().is_none_or(fits) {
        return Err(MqttEndpointError::Credential("password"));
    }
    match (target.username.clone(), target.password.clone()) {
        (None, None) => Ok(ConnectAuth::None),
        (None, Some(_)) => Err(MqttEndpointError::PasswordAlone),
        (Some(username), None) => Ok(ConnectAuth::Username { username }),
        (Some(username), Some(password)) => {
            Ok(ConnectAuth::UsernamePassword { username, password: password.into() })
        }
    }
}

/// 0 is what a target without the field has.
fn connections(wanted: usize) -> Result<usize, MqttEndpointError> {
    match wanted {
        0 => Ok(1),
        1..=CONNECTIONS_MAX => Ok(wanted),
        other => Err(MqttEndpointError::Connections(other)),
    }
}

impl fmt::Debug for MqttEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MqttEndpoint")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> MqttTarget {
        MqttTarget { url: url.to_owned(), ..MqttTarget::default() }
    }

    fn checked(target: &MqttTarget) -> Result<MqttEndpoint, MqttEndpointError> {
        let policy = NetworkPolicy::default();
        MqttEndpoint::broker(target, "anId", Allowed { policy: &policy, extra_roots: &[] })
    }

    fn refused(change: impl FnOnce(&mut MqttTarget)) -> String {
        let mut target = target("mqtts://b.example");
        change(&mut target);
        checked(&target).unwrap_err().to_string()
    }

    #[test]
    fn a_url_has_a_canonical_form_with_the_usual_port() {
        let endpoint = checked(&target("mqtts://B.Example/")).unwrap();
        assert_eq!(endpoint.canonical(), "mqtts://b.example:8883#simgate-anId");
        assert_eq!((endpoint.connections, endpoint.publishes_per_second), (1, None));
        let named = MqttTarget {
            client_id: Some("me".to_owned()),
            ..target("mqtts://[2606:4700::1111]:443")
        };
        let endpoint = checked(&named).unwrap();
        assert_eq!(endpoint.canonical(), "mqtts://2606:4700::1111:443#me");
    }

    /// With a dot at the end of its host, a broker counted as another one: two integrations with one
    /// client id could be made, which ended each other's session for ever.
    #[test]
    fn a_dot_at_the_end_of_the_host_makes_no_other_broker() {
        let dotted = checked(&target("mqtts://b.example.:8883")).unwrap();
        assert_eq!(dotted.canonical(), checked(&target("mqtts://b.example")).unwrap().canonical());
        assert!(checked(&target("mqtts://.")).is_err());
    }

    #[test]
    fn urls_that_lead_nowhere_are_refused_with_the_reason() {
        let url = |url: &str| refused(|target| url.clone_into(&mut target.url));
        assert_eq!(url("https://b.example"), "url has scheme \"https\", allowed: mqtts");
        assert_eq!(url("mqtt://b.example"), MqttEndpointError::Plain.to_string());
        assert!(url("wss://b.example/mqtt").contains("WebSocket is not supported"));
        assert!(url("mqtts://u:s3cret@b.example").starts_with("url holds user information"));
        for more in ["/x", "?x", "#x"] {
            let text = url(&format!("mqtts://b.example:8883{more}"));
            assert!(text.starts_with("url holds more than host and port"), "{more}: {text}");
        }
        assert!(url("mqtts://b.example:22").starts_with("port 22 must not be reached"));
        assert!(url("mqtts://10.0.0.1").contains("must not reach"));
        assert!(url("mqtts://b .example").contains("white space"));
        assert!(url("b.example").starts_with("url is not valid"));
        assert!(url(&format!("mqtts://{}", "b".repeat(2_048))).contains("exceeds the limit"));
    }

    #[test]
    fn what_mqtt_cannot_say_is_refused() {
        let text = refused(|target| target.client_id = Some("a b".to_owned()));
        assert_eq!(text, "client id \"a b\", allowed: 1 to 100 visible ascii characters");
        assert!(refused(|target| target.client_id = Some("a".repeat(101))).contains("1 to 100"));
        assert!(refused(|target| target.client_id = Some(String::new())).contains("1 to 100"));
        let text = refused(|target| target.password = Some("s3cret".to_owned()));
        assert_eq!(text, "password without username");
        let text = refused(|target| target.username = Some("a\0".to_owned()));
        assert_eq!(text, "username has more than 65535 bytes, or a NUL");
        let text = refused(|target| target.connections = 17);
        assert_eq!(text, "17 connections, allowed: 1 to 16");
        let text = refused(|target| target.publishes_per_second = Some(0));
        assert!(text.starts_with("publishes per second is 0"));
        assert!(refused(|target| target.payload = Some(String::new())).contains("is empty"));
        let text = refused(|target| {
            target.topics.insert("ERROR".to_owned(), "a/+".to_owned());
        });
        assert!(text.contains("the topic of ERROR holds '+'"));
        assert!(refused(|target| target.tls.key_pem = Some("x".to_owned())).contains("client key"));
    }

    /// A certificate of the gateway with its key.
    fn identity() -> ClientTls {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["gateway".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        ClientTls {
            roots_pem: None,
            certificate_pem: Some(certificate.pem()),
            key_pem: Some(key.serialize_pem()),
        }
    }

    fn aws(endpoint: &str, tls: ClientTls, port: u16) -> Result<MqttEndpoint, MqttEndpointError> {
        let transport = AwsTransport::Mqtt { tls, port, connections: 3 };
        let endpoint = Some(endpoint.to_owned());
        let target = AwsTarget { endpoint, transport, ..AwsTarget::default() };
        let policy = NetworkPolicy::default();
        MqttEndpoint::aws(&target, "anId", Allowed { policy: &policy, extra_roots: &[] })
    }

    #[test]
    fn aws_is_asked_for_mqtt_by_alpn_on_the_port_of_https_alone() {
        let host = "abc-ats.iot.eu-central-1.amazonaws.com";
        let alpn = |port| {
            let endpoint = aws(host, identity(), port).unwrap();
            assert_eq!(endpoint.publishes_per_second, Some(90));
            assert_eq!(endpoint.payload_bytes_max, Some(131_072));
            (endpoint.port, endpoint.tls.unwrap().1.alpn_protocols.clone())
        };
        assert_eq!(alpn(443), (443, vec![b"x-amzn-mqtt-ca".to_vec()]));
        assert_eq!(alpn(0), (8_883, Vec::new()));
        assert_eq!(alpn(8_883), (8_883, Vec::new()));
    }

    #[test]
    fn aws_needs_a_host_and_a_certificate() {
        let refused = |endpoint: &str, tls| aws(endpoint, tls, 0).unwrap_err().to_string();
        assert!(refused("", identity()).starts_with("endpoint is missing"));
        let without_key = ClientTls { key_pem: None, ..identity() };
        assert!(refused("b.example", without_key).starts_with("key is missing"));
        let nothing = ClientTls::default();
        assert!(refused("b.example", nothing).starts_with("certificate is missing"));
        assert!(refused("10.0.0.1", identity()).contains("must not reach"));
        assert!(refused("b.example/x", identity()).starts_with("url holds more than host"));
    }

    /// The port of an endpoint such as `host:9000` was dropped without a word, and the integration
    /// went to the port of the transport instead.
    #[test]
    fn a_port_of_the_endpoint_is_not_passed_over() {
        let host = "abc-ats.iot.eu-central-1.amazonaws.com";
        let made = |text: &str, port| aws(&format!("{host}{text}"), identity(), port);
        assert_eq!(
            made(":9000", 0).unwrap_err().to_string(),
            "endpoint has port 9000, allowed: 8883, the port of the transport, or none"
        );
        assert!(matches!(made(":8883", 443), Err(MqttEndpointError::AwsPort { .. })));
        assert_eq!(made(":443", 443).unwrap().port, 443);
        assert_eq!(made(":8883", 0).unwrap().port, 8_883);
    }

    #[test]
    fn debug_shows_no_secret() {
        let with = MqttTarget {
            username: Some("s3cret".to_owned()),
            password: Some("s3cret".to_owned()),
            payload: Some("s3cret".to_owned()),
            ..target("mqtts://b.example")
        };
        assert!(!format!("{:?}", checked(&with).unwrap()).contains("s3cret"));
    }
}
