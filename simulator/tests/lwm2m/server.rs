//! A server that does what a test tells it, step by step: a CoAP endpoint on a socket, with DTLS
//! under it or without.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use coap::wire::{Code, ContentFormat, OptionNumber};
use coap::{Config, Endpoint, Event, IncomingRequest, IncomingResponse, Output, Request, Response};
use dtls::{Engine, Psk, SessionId};
use lwm2m::{Model, Path, Record, codec};

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    socket: UdpSocket,
    pub(crate) endpoint: Endpoint<SocketAddr>,
    engine: Option<Engine>,
    sessions: HashMap<SocketAddr, SessionId>,
    requests: VecDeque<IncomingRequest<SocketAddr>>,
    responses: VecDeque<IncomingResponse<SocketAddr>>,
    pub(crate) failures: usize,
    /// Datagrams that arrived.
    pub(crate) arrived: usize,
}

/// Keys by identity.
pub(crate) type Keys = Vec<(Vec<u8>, Vec<u8>)>;

impl Server {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        Self {
            socket,
            endpoint: Endpoint::new(Config::default(), 7),
            engine: None,
            sessions: HashMap::new(),
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            failures: 0,
            arrived: 0,
        }
    }

    pub(crate) fn start_secure(keys: Keys) -> Self {
        let find = move |identity: &[u8]| {
            let found = keys.iter().find(|(known, _)| known == identity);
            found.and_then(|(_, key)| Psk::new(key.clone()).ok())
        };
        let engine = Engine::new(dtls::Config::default(), Instant::now(), find).unwrap();
        Self { engine: Some(engine), ..Self::start() }
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.socket.local_addr().unwrap().port())
    }

    /// Moves everything once.
    fn pump(&mut self) {
        let mut bytes = [0; 2_048];
        let arrived = self.socket.recv_from(&mut bytes);
        let now = Instant::now();
        if let Ok((length, peer)) = arrived {
            self.arrived += 1;
            match &mut self.engine {
                Some(engine) => engine.handle_datagram(now, peer, &bytes[..length]),
                None => self.endpoint.handle_datagram(now, peer, &bytes[..length]),
            }
        }
        self.endpoint.handle_timeout(now);
        self.drain_engine(now);
        self.drain_endpoint();
        self.drain_engine(now);
    }

    fn drain_engine(&mut self, now: Instant) {
        let Some(engine) = &mut self.engine else { return };
        engine.handle_timeout(now);
        loop {
            match engine.poll_output() {
                dtls::Output::Transmit { peer, bytes } => {
                    self.socket.send_to(&bytes, peer).unwrap();
                }
                dtls::Output::Event(dtls::Event::Received { session, peer, bytes, .. }) => {
                    self.sessions.insert(peer, session);
                    self.endpoint.handle_datagram(now, peer, &bytes);
                }
                dtls::Output::Event(_) => {}
                dtls::Output::Timeout(_) => return,
            }
        }
    }

    fn drain_endpoint(&mut self) {
        loop {
            match self.endpoint.poll_output() {
                Output::Transmit { peer, bytes } => match &mut self.engine {
                    None => {
                        // Refused where the devices are gone already.
                        let _ = self.socket.send_to(&bytes, peer);
                    }
                    Some(engine) => {
                        if let Some(session) = self.sessions.get(&peer) {
                            let _ = engine.send(*session, &bytes);
                        }
                    }
                },
                Output::Event(Event::Request(request)) => self.requests.push_back(request),
                Output::Event(Event::Response(mut response)) => {
                    if let Some(notification) = response.notification.take() {
                        let _ = self.endpoint.acknowledge(notification);
                    }
                    self.responses.push_back(response);
                }
                Output::Event(Event::RequestFailed { .. }) => self.failures += 1,
                Output::Event(_) => {}
                Output::Timeout(_) => return,
            }
        }
    }

    /// Moves things until something is there.
    pub(crate) fn until<T>(&mut self, mut found: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "nothing came within {PATIENCE:?}");
            self.pump();
        }
    }

    /// Moves things for a while.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.pump();
        }
    }

    /// The next request of a device, which must have this method and this beginning of its path.
    pub(crate) fn request(&mut self, method: Code, path: &str) -> IncomingRequest<SocketAddr> {
        let request = self.until(|server| server.requests.pop_front());
        let found = join(request.path());
        assert_eq!((request.method, found.as_str()), (method, path), "{request:?}");
        request
    }

    pub(crate) fn take_request(&mut self) -> Option<IncomingRequest<SocketAddr>> {
        self.requests.pop_front()
    }

    pub(crate) fn take_response(&mut self) -> Option<IncomingResponse<SocketAddr>> {
        self.responses.pop_front()
    }

    pub(crate) fn respond(&mut self, request: IncomingRequest<SocketAddr>, response: Response) {
        self.endpoint.respond(Instant::now(), request.exchange, response);
        self.drain_endpoint();
        self.drain_engine(Instant::now());
    }

    /// Takes a registration; where the device is.
    pub(crate) fn take_registration(&mut self, id: &str) -> (SocketAddr, Vec<String>, String) {
        let request = self.request(Code::POST, "rd");
        let peer = request.peer();
        let queries = request.queries().map(|query| query.unwrap().to_owned()).collect();
        let links = String::from_utf8(request.payload.clone()).unwrap();
        self.respond(request, created(id));
        (peer, queries, links)
    }

    /// Asks a device, and waits for its answer.
    pub(crate) fn ask(
        &mut self,
        peer: SocketAddr,
        request: Request,
    ) -> IncomingResponse<SocketAddr> {
        let id = self.endpoint.request(Instant::now(), peer, request).unwrap();
        self.drain_endpoint();
        self.drain_engine(Instant::now());
        self.until(|server| {
            let place = server.responses.iter().position(|response| response.request == id)?;
            server.responses.remove(place)
        })
    }

    /// The code of the answer to a request.
    pub(crate) fn code(&mut self, peer: SocketAddr, request: Request) -> Code {
        self.ask(peer, request).code
    }

    /// Reads values in a format.
    pub(crate) fn read(
        &mut self,
        peer: SocketAddr,
        path: &str,
        format: ContentFormat,
    ) -> Vec<Record> {
        let answer = self.ask(peer, get(path, Some(format)));
        assert_eq!(answer.code, Code::CONTENT, "{path}");
        decode(&answer, path)
    }
}

pub(crate) fn decode(answer: &IncomingResponse<SocketAddr>, path: &str) -> Vec<Record> {
    let format = answer.content_format().unwrap();
    let base: Path = path.parse().unwrap();
    codec::decode(format, &base, &answer.payload, &Model::builtin(), 0.0).unwrap()
}

pub(crate) fn created(id: &str) -> Response {
    Response::new(Code::CREATED)
        .with_option(OptionNumber::LOCATION_PATH, b"rd")
        .and_then(|response| response.with_option(OptionNumber::LOCATION_PATH, id.as_bytes()))
        .unwrap()
}

pub(crate) fn join<'a>(parts: impl Iterator<Item = Option<&'a str>>) -> String {
    parts.map(Option::unwrap).collect::<Vec<_>>().join("/")
}

pub(crate) fn to(method: Code, path: &str) -> Request {
    let mut request = Request::new(method);
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        request.options.push(OptionNumber::URI_PATH, segment.as_bytes()).unwrap();
    }
    request
}

pub(crate) fn get(path: &str, accept: Option<ContentFormat>) -> Request {
    let mut request = to(Code::GET, path);
    if let Some(accept) = accept {
        request.options.push_uint(OptionNumber::ACCEPT, accept.0.into()).unwrap();
    }
    request
}

pub(crate) fn body(mut request: Request, format: ContentFormat, payload: &[u8]) -> Request {
    request.options.push_uint(OptionNumber::CONTENT_FORMAT, format.0.into()).unwrap();
    request.payload = payload.to_vec();
    request
}

/// PUT of values below `path`.
pub(crate) fn put(path: &str, format: ContentFormat, records: &[Record]) -> Request {
    let payload = codec::encode(format, &path.parse().unwrap(), records).unwrap();
    body(to(Code::PUT, path), format, &payload)
}
