//! From a broker's name to an MQTT session: look-up, TCP, TLS, CONNECT and CONNACK.
//!
//! The addresses that the resolver has judged are the ones that are connected to, and TLS expects
//! the name that was looked up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::mqttbytes::v5::{ConnAck, Connect, ConnectProperties, Packet};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::endpoint::MqttEndpoint;
use super::reasons::{self, Answered, FAILURE_MIN};
use crate::network::{ResolveError, Resolver};
use crate::sink::{Failure, FailureClass};

/// The largest packet that a broker may send: acknowledgements with their reasons are far below.
pub(super) const INCOMING_BYTES_MAX: u32 = 16 * 1_024;
/// One address gets so long; a second one may still answer in time.
const TCP_TIMEOUT: Duration = Duration::from_secs(4);
/// A CONNACK of MQTT 3: two bytes, where that of MQTT 5 has three at least.
const OLD_CONNACK: [u8; 2] = [0x20, 0x02];

/// A connection of either kind.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An open session, and what the broker granted.
pub(super) struct Opened {
    pub(super) stream: Box<dyn Duplex>,
    /// What came after CONNACK.
    pub(super) inbox: BytesMut,
    /// Publishes without PUBACK at most.
    pub(super) in_flight_max: u16,
    /// The largest packet that the broker takes.
    pub(super) packet_bytes_max: Option<u32>,
    pub(super) keep_alive: Duration,
}

/// Opens a session for `client_id`, which begins with nothing of an earlier one.
pub(super) async fn open(
    to: &MqttEndpoint,
    client_id: &str,
    resolver: &Resolver,
    keep_alive: Duration,
) -> Result<Opened, Failure> {
    let addresses = resolver.resolve(&to.host, to.port).await.map_err(unresolved)?;
    let tcp = dial(&addresses).await?;
    let mut stream: Box<dyn Duplex> = match &to.tls {
        Some((name, config)) => secure(tcp, name, config).await?,
        None => Box::new(tcp),
    };
    let mut packet = BytesMut::new();
    connect(to, client_id, keep_alive)
        .write(&mut packet, None)
        .map_err(|_| Failure::new(FailureClass::Request, "no valid CONNECT"))?;
    let mut inbox = BytesMut::new();
    let greeted = greet(&mut stream, &packet, &mut inbox).await;
    let answer = greeted.map_err(|error| describe(&error, closed_before_connack(to)))??;
    let properties = answer.properties.as_ref();
    if properties.and_then(|properties| properties.max_qos) == Some(0) {
        return Err(Failure::new(FailureClass::Status, "the broker takes no events of QoS 1"));
    }
    let granted = properties.and_then(|properties| properties.server_keep_alive);
    Ok(Opened {
        stream,
        inbox,
        in_flight_max: properties.and_then(|properties| properties.receive_max).unwrap_or(u16::MAX),
        packet_bytes_max: properties.and_then(|properties| properties.max_packet_size),
        keep_alive: granted.map_or(keep_alive, |secs| Duration::from_secs(secs.into())),
    })
}

fn connect(to: &MqttEndpoint, client_id: &str, keep_alive: Duration) -> Packet {
    let properties = ConnectProperties {
        // The session ends with its connection: what was in flight is the forwarder's again.
        session_expiry_interval: Some(0),
        max_packet_size: Some(INCOMING_BYTES_MAX),
        ..ConnectProperties::new()
    };
    let connect = Connect {
        keep_alive: u16::try_from(keep_alive.as_secs()).unwrap_or(u16::MAX),
        client_id: client_id.to_owned(),
        clean_start: true,
        properties: Some(properties),
    };
    Packet::Connect(connect, None, to.auth.clone())
}

async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut failure = Failure::new(FailureClass::Dns, "the broker has no address");
    for address in addresses {
        match timeout(TCP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Acknowledgements are waited for, so nothing may wait to be sent.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Ok(Err(error)) => {
                failure = Failure::new(FailureClass::Connect, format!("no connection: {error}"));
            }
            Err(_) => {
                failure = Failure::new(FailureClass::Connect, "no connection in time");
            }
        }
    }
    Err(failure)
}

async fn secure(
    tcp: TcpStream,
    name: &ServerName<'static>,
    config: &Arc<ClientConfig>,
) -> Result<Box<dyn Duplex>, Failure> {
    let connector = TlsConnector::from(Arc::clone(config));
    match connector.connect(name.clone(), tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => {
            let closed = Failure::new(FailureClass::Tls, "the broker ended the TLS handshake");
            Err(describe(&error, closed))
        }
    }
}

/// Sends CONNECT and waits for CONNACK. The outer error is the connection's.
async fn greet(
    stream: &mut Box<dyn Duplex>,
    connect: &[u8],
    inbox: &mut BytesMut,
) -> io::Result<Result<ConnAck, Failure>> {
    stream.write_all(connect).await?;
    stream.flush().await?;
    loop {
        if inbox.starts_with(&OLD_CONNACK) {
            let text = "the broker answered in MQTT 3: it speaks no MQTT 5";
            return Ok(Err(Failure::new(FailureClass::Status, text)));
        }
        match next_packet(inbox) {
            Ok(Some(packet)) => return Ok(judge(packet)),
            Ok(None) => {}
            // The number is all that is left of such a CONNACK.
            Err(Malformed::Code(code)) => return Ok(Err(refused(code, None))),
            Err(Malformed::Packet(failure)) => return Ok(Err(failure)),
        }
        if stream.read_buf(inbox).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn judge(packet: Packet) -> Result<ConnAck, Failure> {
    let Packet::ConnAck(answer) = packet else { return Err(unexpected(&packet)) };
    let code = code_of(&answer);
    if code < FAILURE_MIN {
        return Ok(answer);
    }
    let reason = answer.properties.as_ref().and_then(|properties| properties.reason_string.clone());
    Err(refused(code, reason.as_deref()))
}

fn refused(code: u8, reason: Option<&str>) -> Failure {
    reasons::failure(Answered::Connect, code, reason)
}

/// The reason code: the library keeps the word alone, but writes the number.
fn code_of(answer: &ConnAck) -> u8 {
    let bare = ConnAck { session_present: false, code: answer.code, properties: None };
    let mut bytes = BytesMut::new();
    match bare.write(&mut bytes) {
        Ok(_) => bytes.get(3).copied().unwrap_or(FAILURE_MIN),
        Err(_) => FAILURE_MIN,
    }
}

/// What is no packet.
pub(super) enum Malformed {
    /// A code that the library does not know.
    Code(u8),
    Packet(Failure),
}

/// Takes the next packet out of `inbox`; `None` where it is not complete.
pub(super) fn next_packet(inbox: &mut BytesMut) -> Result<Option<Packet>, Malformed> {
    let before = inbox.len();
    match Packet::read(inbox, Some(INCOMING_BYTES_MAX)) {
        Ok(packet) => Ok(Some(packet)),
        // Only where nothing was taken out are more bytes to come: otherwise a field said it is
        // longer than its packet.
        Err(PacketError::InsufficientBytes(_)) if inbox.len() == before => Ok(None),
        Err(PacketError::InvalidConnectReturnCode(code)) => Err(Malformed::Code(code)),
        Err(error) => {
            let text = format!("the broker sent what is no MQTT 5: {error}");
            Err(Malformed::Packet(Failure::new(FailureClass::Transport, text)))
        }
    }
}

/// A packet that the broker had no reason to send.
pub(super) fn unexpected(packet: &Packet) -> Failure {
    let text = format!("the broker sent an unexpected packet: {:?}", packet.packet_type());
    Failure::new(FailureClass::Transport, text)
}

fn closed_before_connack(to: &MqttEndpoint) -> Failure {
    if to.aws {
        let text = "AWS IoT Core closed the connection without an answer: the certificate is not \
                    active, or its policy does not allow iot:Connect with this client id";
        return Failure::new(FailureClass::Credentials, text);
    }
    let text = "the broker closed the connection without an answer to CONNECT: brokers without \
                MQTT 5 do so, and some that do not know the client";
    Failure::new(FailureClass::Transport, text)
}

fn unresolved(error: ResolveError) -> Failure {
    let class = match error {
        ResolveError::Blocked(_) => FailureClass::Blocked,
        _ => FailureClass::Dns,
    };
    Failure::new(class, error.to_string())
}

/// What failed, where `closed` says what it means that the broker simply closed.
pub(super) fn describe(error: &io::Error, closed: Failure) -> Failure {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Failure::new(tls_class(tls), format!("TLS: {tls}"));
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted => closed,
        _ => Failure::new(FailureClass::Transport, error.to_string()),
    }
}

fn tls_class(error: &rustls::Error) -> FailureClass {
    use AlertDescription as Alert;
    match error {
        // The broker's word about what we showed (RFC 8446 §6.2).
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => FailureClass::Credentials,
        _ => FailureClass::Tls,
    }
}
