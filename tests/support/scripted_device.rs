//! A device that says exactly what a test wants it to, in CoAP, and hears everything.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use coap::wire::{Code, Encoder, MessageId, MessageRef, MessageType, OptionNumber, Token};

use super::{PATIENCE, random};

/// How long a device listens before it believes that nothing comes.
const SILENCE: Duration = Duration::from_secs(1);

/// A device repeats after this: an answer takes milliseconds, but for a start in between.
const REPEAT: Duration = Duration::from_secs(1);

/// A format and a payload.
pub(crate) type Content<'a> = Option<(u16, &'a [u8])>;

/// Content formats, as the wire has them.
pub(crate) const TEXT: u16 = 0;
pub(crate) const LINKS: u16 = 40;
pub(crate) const SENML_JSON: u16 = 110;
pub(crate) const SENML_CBOR: u16 = 112;
pub(crate) const TLV: u16 = 11_542;

/// A device with a SIM's address.
pub(crate) struct ScriptedDevice {
    socket: UdpSocket,
    pub(crate) to: SocketAddr,
    next_id: u16,
    unread: VecDeque<Heard>,
    /// What was said to each request, for its copies.
    answers: HashMap<u16, Vec<u8>>,
}

/// A message that the device got.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) from: SocketAddr,
    pub(crate) kind: MessageType,
    pub(crate) code: Code,
    pub(crate) id: u16,
    pub(crate) token: Vec<u8>,
    /// `/3303/0/5700`; of an answer its Location-Path.
    pub(crate) path: String,
    pub(crate) query: Vec<String>,
    pub(crate) observe: Option<u32>,
    pub(crate) format: Option<u32>,
    pub(crate) max_age: Option<u32>,
    pub(crate) payload: Vec<u8>,
}

impl Heard {
    pub(crate) fn read(from: SocketAddr, bytes: &[u8]) -> Self {
        let message = MessageRef::parse(bytes).unwrap_or_else(|_| panic!("{bytes:02x?}"));
        let texts = |number: OptionNumber| {
            let options = message.options().filter(move |option| option.number == number);
            options.map(|option| option.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let number = |number| message.option(number).and_then(|option| option.as_uint());
        let place = match message.code.is_request() {
            true => OptionNumber::URI_PATH,
            false => OptionNumber::LOCATION_PATH,
        };
        Self {
            from,
            kind: message.message_type,
            code: message.code,
            id: message.id.0,
            token: message.token.as_bytes().to_vec(),
            path: format!("/{}", texts(place).join("/")),
            query: texts(OptionNumber::URI_QUERY),
            observe: number(OptionNumber::OBSERVE),
            format: number(OptionNumber::CONTENT_FORMAT),
            max_age: number(OptionNumber::MAX_AGE),
            payload: message.payload.to_vec(),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.payload.clone()).unwrap()
    }
}

impl ScriptedDevice {
    /// A device at `source` that speaks to `to`.
    pub(crate) fn new(source: &str, to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        let next_id = u16::try_from(random(1, 60_000)).unwrap();
        Self { socket, to, next_id, unread: VecDeque::new(), answers: HashMap::new() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    pub(crate) fn say(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.to).unwrap();
    }

    /// A confirmable request with a message id and token of its own.
    pub(crate) fn request(&mut self, method: Code, uri: &str, content: Content<'_>) -> Vec<u8> {
        let id = self.new_id();
        let [high, low] = id.to_be_bytes();
        let token = Token::new(&[0x5d, high, low]).unwrap();
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let mut bytes = Vec::new();
        let kind = MessageType::Confirmable;
        let mut encoder = Encoder::new(&mut bytes, kind, method, MessageId(id), token)
            .texts(OptionNumber::URI_PATH, path.split('/').filter(|part| !part.is_empty()));
        if let Some((format, _)) = content {
            encoder = encoder.uint(OptionNumber::CONTENT_FORMAT, format.into());
        }
        encoder
            .texts(OptionNumber::URI_QUERY, query.split('&').filter(|part| !part.is_empty()))
            .payload(content.map_or(&[], |(_, payload)| payload))
            .unwrap();
        bytes
    }

    /// Asks, repeats, and gets the answer.
    pub(crate) fn ask(&mut self, method: Code, uri: &str, content: Content<'_>) -> Heard {
        let request = self.request(method, uri, content);
        self.ask_with(&request)
    }

    /// Like [`ScriptedDevice::ask`], with a request made before.
    pub(crate) fn ask_with(&mut self, request: &[u8]) -> Heard {
        let asked = MessageRef::parse(request).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.say(request);
            let is_meant = |heard: &Heard| {
                !heard.code.is_request()
                    && (heard.id == asked.id.0 || heard.token == asked.token.as_bytes())
                    && (heard.code != Code::EMPTY || heard.kind == MessageType::Reset)
            };
            if let Some(answer) = self.find(REPEAT, is_meant) {
                if answer.kind == MessageType::Confirmable {
                    self.acknowledge(answer.id);
                }
                return answer;
            }
        }
        panic!("no answer within {PATIENCE:?}");
    }

    /// The next request of the gateway.
    pub(crate) fn asked(&mut self) -> Heard {
        self.find(PATIENCE, |heard| heard.code.is_request()).expect("a request of the gateway")
    }

    /// The next message, if one comes soon.
    pub(crate) fn next(&mut self) -> Option<Heard> {
        self.find(SILENCE, |_| true)
    }

    /// The next datagram as it is, if one comes soon; for devices that speak no CoAP.
    pub(crate) fn next_datagram(&self, patience: Duration) -> Option<Vec<u8>> {
        let mut bytes = [0; 2_048];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        self.socket.recv(&mut bytes).ok().map(|length| bytes[..length].to_vec())
    }

    /// Answers a request, on its acknowledgement.
    pub(crate) fn answer(&mut self, asked: &Heard, code: Code, content: Content<'_>) {
        self.answer_with(asked, code, (None, content));
    }

    /// Answers an observation.
    pub(crate) fn answer_with(
        &mut self,
        asked: &Heard,
        code: Code,
        (observe, content): (Option<u32>, Content<'_>),
    ) {
        let kind = MessageType::Acknowledgement;
        let said = response((kind, asked.id), &asked.token, code, (observe, content));
        self.socket.send_to(&said, asked.from).unwrap();
        self.answers.insert(asked.id, said);
    }

    /// A confirmable notification, or a late answer: its message id, and itself.
    pub(crate) fn notification(
        &mut self,
        token: &[u8],
        observe: Option<u32>,
        content: (u16, &[u8]),
    ) -> (u16, Vec<u8>) {
        let id = self.new_id();
        let kind = MessageType::Confirmable;
        (id, response((kind, id), token, Code::CONTENT, (observe, Some(content))))
    }

    /// How a confirmable message of the device was taken: ACK or RST, or nothing.
    pub(crate) fn taken(&mut self, (id, message): &(u16, Vec<u8>)) -> Option<MessageType> {
        self.say(message);
        self.find(REPEAT, |heard| heard.id == *id && heard.code == Code::EMPTY).map(|it| it.kind)
    }

    /// Notifies until it is acknowledged.
    pub(crate) fn notify(&mut self, token: &[u8], sequence: u32, content: (u16, &[u8])) {
        let notification = self.notification(token, Some(sequence), content);
        let deadline = Instant::now() + PATIENCE;
        while self.taken(&notification) != Some(MessageType::Acknowledgement) {
            assert!(Instant::now() < deadline, "a notification is not acknowledged");
        }
    }

    /// Resets a request.
    pub(crate) fn reset(&mut self, asked: &Heard) {
        let [high, low] = asked.id.to_be_bytes();
        let reset = vec![0x70, 0, high, low];
        self.socket.send_to(&reset, asked.from).unwrap();
        self.answers.insert(asked.id, reset);
    }

    fn acknowledge(&self, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.say(&[0x60, 0, high, low]);
    }

    fn new_id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    fn find(&mut self, patience: Duration, is_meant: impl Fn(&Heard) -> bool) -> Option<Heard> {
        if let Some(place) = self.unread.iter().position(&is_meant) {
            return self.unread.remove(place);
        }
        let deadline = Instant::now() + patience;
        let mut bytes = [0; 2_048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            // A gateway that is away: the kernel says that nobody listens.
            let Ok((length, from)) = self.socket.recv_from(&mut bytes) else { continue };
            let heard = Heard::read(from, &bytes[..length]);
            if let Some(said) = self.answers.get(&heard.id).filter(|_| heard.code.is_request()) {
                self.socket.send_to(said, from).unwrap();
                continue;
            }
            if is_meant(&heard) {
                return Some(heard);
            }
            self.unread.push_back(heard);
        }
    }
}

/// LwM2M.
impl ScriptedDevice {
    /// Registers; the path of the registration.
    pub(crate) fn register(&mut self, iccid: &str, lifetime: u32, links: &str) -> String {
        let uri = format!("/rd?ep={iccid}&lt={lifetime}&lwm2m=1.1&b=U");
        let answer = self.ask(Code::POST, &uri, Some((LINKS, links.as_bytes())));
        assert_eq!(answer.code, Code::CREATED, "{answer:?}");
        answer.path
    }

    /// Sends one value.
    pub(crate) fn send_value(&mut self, path: &str, value: f64) -> Code {
        let payload = format!(r#"[{{"n":"{path}","v":{value}}}]"#);
        self.ask(Code::POST, "/dp", Some((SENML_JSON, payload.as_bytes()))).code
    }
}

fn response(
    (kind, id): (MessageType, u16),
    token: &[u8],
    code: Code,
    (observe, content): (Option<u32>, Content<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let token = Token::new(token).unwrap();
    let mut encoder = Encoder::new(&mut bytes, kind, code, MessageId(id), token);
    if let Some(observe) = observe {
        encoder = encoder.uint(OptionNumber::OBSERVE, observe);
    }
    if let Some((format, _)) = content {
        encoder = encoder.uint(OptionNumber::CONTENT_FORMAT, format.into());
    }
    encoder.payload(content.map_or(&[], |(_, payload)| payload)).unwrap();
    bytes
}
