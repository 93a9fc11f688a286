//! A device that speaks CoAP over DTLS, one step at a time.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dtls::client::{Client, ClientConfig, ClientOutput, ClientResumption};
use dtls::{Psk, Suite};

use super::{PATIENCE, coap_answer, coap_request};

/// How long a device listens before it believes that nothing comes.
const SILENCE: Duration = Duration::from_millis(300);

/// A device with a key.
pub(crate) struct SecureDevice {
    socket: UdpSocket,
    to: SocketAddr,
    config: ClientConfig,
    client: Client,
    message_id: u16,
}

/// What a device at `source` is told when it asks for its key: the whole answer.
pub(crate) fn ask_for_key(source: impl ToString, coap: SocketAddr) -> Vec<u8> {
    let socket = UdpSocket::bind((source.to_string().as_str(), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"\x40\x01\x01\x02\xb9bootstrap", coap).unwrap();
    let mut answer = [0; 150];
    let length = socket.recv(&mut answer).unwrap();
    answer[..length].to_vec()
}

/// The identity, the key and the URL that an answer tells.
pub(crate) fn told(answer: &[u8]) -> Vec<String> {
    assert_eq!(answer[1], 0x45, "2.05: {answer:02x?}");
    let line = std::str::from_utf8(&answer[5..]).unwrap();
    line.split(',').map(str::to_owned).collect()
}

/// How a handshake or a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Established,
    Received(Vec<u8>),
    Closed,
    Silent,
}

impl SecureDevice {
    /// A device at `source` that will greet `to`. With `cid` it asks for a connection ID.
    pub(crate) fn new(
        source: &str,
        to: SocketAddr,
        (identity, key): (&str, &str),
        cid: bool,
    ) -> Self {
        let key = Psk::new(key.as_bytes().to_vec()).unwrap();
        let cid = cid.then_some(&[][..]);
        let suites = [Suite::Aes128Ccm8];
        let config = ClientConfig::new(identity.as_bytes(), &key, &suites, cid).unwrap();
        let client = Client::new(&config, Instant::now(), None).unwrap();
        Self { socket: UdpSocket::bind((source, 0)).unwrap(), to, config, client, message_id: 0 }
    }

    /// A device whose handshake is done.
    pub(crate) fn connected(
        source: &str,
        to: SocketAddr,
        credentials: (&str, &str),
        cid: bool,
    ) -> Self {
        let mut device = Self::new(source, to, credentials, cid);
        assert_eq!(device.shake_hands(), Ended::Established);
        device
    }

    /// Begins a handshake, goes on until the server waits for the key, and says no more.
    pub(crate) fn greet(&mut self) {
        let mut bytes = [0; 2_048];
        self.socket.set_read_timeout(Some(SILENCE)).unwrap();
        self.flush();
        let length = self.socket.recv(&mut bytes).unwrap();
        self.client.handle_datagram(Instant::now(), &bytes[..length]);
        self.flush();
    }

    pub(crate) fn shake_hands(&mut self) -> Ended {
        self.wait(PATIENCE)
    }

    /// Forgets its session and makes a new one from the same port.
    pub(crate) fn reconnect(&mut self, resume: Option<&ClientResumption>) -> Ended {
        self.client = Client::new(&self.config, Instant::now(), resume).unwrap();
        self.shake_hands()
    }

    pub(crate) fn resumption(&self) -> ClientResumption {
        self.client.resumption().unwrap()
    }

    /// Has another address from now on.
    pub(crate) fn move_to(&mut self, source: &str) {
        self.socket = UdpSocket::bind((source, 0)).unwrap();
    }

    /// Posts `payload`; the code and the payload of the answer, if there is one.
    pub(crate) fn post(&mut self, payload: &[u8]) -> Option<(u16, Vec<u8>)> {
        self.begin_post(payload);
        self.flush();
        self.answer()
    }

    /// Sends a request without a payload to a resource; code 1 is GET.
    pub(crate) fn request(&mut self, code: u8, path: &str) -> Option<(u16, Vec<u8>)> {
        self.message_id += 1;
        let mut request = vec![0x40, code];
        request.extend_from_slice(&self.message_id.to_be_bytes());
        // Uri-Path (11), of at most 12 bytes.
        request.push(0xb0 | u8::try_from(path.len()).unwrap());
        request.extend_from_slice(path.as_bytes());
        assert!(self.client.send(&request));
        self.flush();
        self.answer()
    }

    /// The answer to a post that was sent before.
    pub(crate) fn answer(&mut self) -> Option<(u16, Vec<u8>)> {
        match self.wait(PATIENCE) {
            Ended::Received(answer) => Some(coap_answer(&answer)),
            _ => None,
        }
    }

    /// The next message of the gateway, as it is.
    pub(crate) fn heard(&mut self) -> Option<Vec<u8>> {
        match self.wait(PATIENCE) {
            Ended::Received(message) => Some(message),
            _ => None,
        }
    }

    /// Sends a message.
    pub(crate) fn say(&mut self, message: &[u8]) {
        assert!(self.client.send(message));
        self.flush();
    }

    /// Like [`SecureDevice::post`], for one that is expected to get no answer.
    pub(crate) fn post_in_vain(&mut self, payload: &[u8]) -> Ended {
        self.begin_post(payload);
        self.flush();
        self.wait(SILENCE)
    }

    /// The datagram of a post, for the test to send.
    pub(crate) fn post_as_datagram(&mut self, payload: &[u8]) -> Vec<u8> {
        self.begin_post(payload);
        match self.client.poll_output() {
            ClientOutput::Transmit(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    /// A post and a close_notify, in one datagram: RFC 6347 §4.1.1 allows it, and two datagrams
    /// that are read together are the same.
    pub(crate) fn post_and_close(&mut self, payload: &[u8]) {
        let mut datagram = self.post_as_datagram(payload);
        self.client.close();
        match self.client.poll_output() {
            ClientOutput::Transmit(bytes) => datagram.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
        self.send_datagram(&datagram);
    }

    pub(crate) fn send_datagram(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.to).unwrap();
    }

    /// The next datagram that comes, as it is.
    pub(crate) fn next_datagram(&self) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(SILENCE)).unwrap();
        let mut bytes = [0; 2_048];
        self.socket.recv(&mut bytes).ok().map(|length| bytes[..length].to_vec())
    }

    fn begin_post(&mut self, payload: &[u8]) {
        self.message_id += 1;
        assert!(self.client.send(&coap_request(self.message_id, None, payload)));
    }

    fn flush(&mut self) -> Option<Ended> {
        loop {
            match self.client.poll_output() {
                ClientOutput::Transmit(bytes) => self.send_datagram(&bytes),
                ClientOutput::Established => return Some(Ended::Established),
                ClientOutput::Received(bytes) => return Some(Ended::Received(bytes)),
                ClientOutput::Closed(_) => return Some(Ended::Closed),
                ClientOutput::Timeout(_) => return None,
            }
        }
    }

    fn wait(&mut self, patience: Duration) -> Ended {
        let deadline = Instant::now() + patience;
        let mut bytes = [0; 2_048];
        self.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        loop {
            if let Some(ended) = self.flush() {
                return ended;
            }
            match self.socket.recv(&mut bytes) {
                Ok(length) => self.client.handle_datagram(Instant::now(), &bytes[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.client.handle_timeout(Instant::now());
                }
                // A gateway that is away: the kernel says that nobody listens.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => panic!("{error}"),
            }
            if Instant::now() >= deadline {
                return Ended::Silent;
            }
        }
    }
}
