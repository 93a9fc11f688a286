//! A server of MQTT 5 that does what a script says, and writes down what it saw.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A broker on a free port. It runs as long as its runtime.
pub(crate) struct FakeBroker {
    pub(crate) port: u16,
    sessions: Arc<AtomicUsize>,
    book: Arc<Book>,
}

#[derive(Default)]
struct Book {
    notes: Mutex<Vec<String>>,
    counts: Mutex<Vec<usize>>,
}

/// One connection of the client.
pub(crate) struct Session {
    stream: TcpStream,
    book: Arc<Book>,
    /// The first is 1.
    pub(crate) number: usize,
    pub(crate) since_start: Duration,
}

/// A PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) packet_id: u16,
    pub(crate) topic: String,
    /// The user property `webhook-id`.
    pub(crate) id: String,
    pub(crate) payload: Vec<u8>,
}

/// PUBACK with a reason code.
pub(crate) fn puback(packet_id: u16, code: u8) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    vec![0x40, 3, high, low, code]
}

impl FakeBroker {
    pub(crate) async fn start<F, S>(script: F) -> Self
    where
        F: Fn(Session) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sessions, book, start) = (Arc::default(), Arc::default(), Instant::now());
        let broker = Self { port, sessions: Arc::clone(&sessions), book: Arc::clone(&book) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = sessions.fetch_add(1, Ordering::Relaxed) + 1;
                let book = Arc::clone(&book);
                let since_start = start.elapsed();
                tokio::spawn(script(Session { stream, book, number, since_start }));
            }
        });
        broker
    }

    /// Connections so far.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.book.notes.lock().unwrap().clone()
    }

    pub(crate) fn counts(&self) -> Vec<usize> {
        self.book.counts.lock().unwrap().clone()
    }
}

impl Session {
    /// Reads CONNECT, which must ask for a fresh session, and returns the client id.
    pub(crate) async fn connect(&mut self) -> String {
        let packet = self.packet().await.expect("a CONNECT");
        let body = body(&packet);
        assert_eq!(packet[0], 0x10);
        assert_eq!(&body[..7], [0, 4, b'M', b'Q', b'T', b'T', 5]);
        assert_eq!(body[7] & 0x02, 0x02, "clean start");
        // Flags, keep-alive, then properties of less than 128 bytes.
        let properties = usize::from(body[10]);
        let id = &body[11 + properties..];
        let length = usize::from(u16::from_be_bytes([id[0], id[1]]));
        String::from_utf8(id[2..2 + length].to_vec()).unwrap()
    }

    /// Sends a CONNACK of success with `properties`.
    pub(crate) async fn accept(&mut self, properties: &[u8]) {
        let length = u8::try_from(properties.len()).unwrap();
        let mut packet = vec![0x20, 3 + length, 0, 0, length];
        packet.extend_from_slice(properties);
        self.send(&packet).await;
    }

    pub(crate) async fn greet(&mut self) {
        self.greet_with(&[]).await;
    }

    pub(crate) async fn greet_with(&mut self, properties: &[u8]) {
        self.connect().await;
        self.accept(properties).await;
    }

    /// The next PUBLISH of QoS 1; `None` at the end.
    pub(crate) async fn publish(&mut self) -> Option<Publish> {
        let packet = self.packet().await?;
        // Neither a duplicate nor retained. DISCONNECT is the end.
        match packet[0] {
            0x32 => Some(parse(&packet)),
            0xE0 => None,
            other => panic!("expected PUBLISH, found 0x{other:02x}"),
        }
    }

    pub(crate) async fn acknowledge_all(mut self) {
        self.greet().await;
        while let Some(publish) = self.publish().await {
            self.send(&puback(publish.packet_id, 0)).await;
        }
    }

    pub(crate) async fn until_closed(&mut self) {
        while self.packet().await.is_some() {}
    }

    /// Whether something comes within `patience`.
    pub(crate) async fn has_more(&self, patience: Duration) -> bool {
        let peeked = tokio::time::timeout(patience, self.stream.peek(&mut [0; 1])).await;
        matches!(peeked, Ok(Ok(1)))
    }

    /// The next packet, whole; `None` at the end.
    pub(crate) async fn packet(&mut self) -> Option<Vec<u8>> {
        let mut start = [0; 1];
        self.stream.read_exact(&mut start).await.ok()?;
        let mut packet = start.to_vec();
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.stream.read_u8().await.ok()?;
            packet.push(byte);
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let before = packet.len();
        packet.resize(before + length, 0);
        self.stream.read_exact(&mut packet[before..]).await.ok()?;
        Some(packet)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The client may have gone already.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Whether the client is still there to send to.
    pub(crate) async fn sends(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    pub(crate) fn note(&self, publish: &Publish) {
        let Publish { topic, id, payload, .. } = publish;
        self.note_text(format!("{topic} {id} {}", String::from_utf8_lossy(payload)));
    }

    pub(crate) fn note_text(&self, text: String) {
        self.book.notes.lock().unwrap().push(text);
    }

    pub(crate) fn note_count(&self, count: usize) {
        self.book.counts.lock().unwrap().push(count);
    }
}

/// Reads a PUBLISH of QoS 1.
pub(crate) fn parse(packet: &[u8]) -> Publish {
    let mut rest = body(packet);
    let topic = take_text(&mut rest);
    let packet_id = u16::from_be_bytes([rest[0], rest[1]]);
    // Properties of less than 128 bytes.
    let (mut properties, payload) = rest[3..].split_at(usize::from(rest[2]));
    let mut id = String::new();
    while let Some((kind, more)) = properties.split_first() {
        properties = more;
        match kind {
            // Payload format indicator.
            0x01 => properties = &properties[1..],
            // Content type.
            0x03 => drop(take_text(&mut properties)),
            // User property.
            0x26 => {
                assert_eq!(take_text(&mut properties), "webhook-id");
                id = take_text(&mut properties);
            }
            other => panic!("unexpected property 0x{other:02x}"),
        }
    }
    Publish { packet_id, topic, id, payload: payload.to_vec() }
}

fn take_text(rest: &mut &[u8]) -> String {
    let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    let text = String::from_utf8(rest[2..2 + length].to_vec()).unwrap();
    *rest = &rest[2 + length..];
    text
}

/// What follows the length.
fn body(packet: &[u8]) -> &[u8] {
    let length = packet[1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    &packet[1 + length..]
}
