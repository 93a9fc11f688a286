//! The devices' requests and the server's answers as bytes.

use coap::wire::Token;
use coap::wire::{Code, EncodeError, Encoder, MessageId, MessageRef, MessageType, OptionNumber};

use crate::exchanges::{Exchange, Reply};
use crate::plan::{Plan, Protocol};
use crate::random::Random;

/// Where the token begins: behind the header of four bytes (RFC 7252 §3).
const TOKEN_AT: usize = 4;

/// A request but for what differs from one to the next: message id, token and payload. Writing it
/// anew for each message would cost as much as all the rest of the generator's own work.
#[derive(Debug)]
pub(crate) struct RequestForm {
    bytes: Vec<u8>,
    token_bytes: usize,
}

impl RequestForm {
    /// The form of all requests of `plan`.
    pub(crate) fn new(plan: &Plan) -> Result<Self, EncodeError> {
        let kind = match plan.protocol {
            Protocol::CoapNon => MessageType::NonConfirmable,
            _ => MessageType::Confirmable,
        };
        let code = Code::from_byte(plan.method.code());
        let token = [0; Token::MAX_BYTES];
        // The plan allows 4 and 8 only.
        let token = Token::new(&token[..plan.token_bytes]).unwrap_or_default();
        let (path, query) = plan.path.split_once('?').unwrap_or((&plan.path, ""));
        let topic = plan.topic.as_ref().map(|topic| format!("t={topic}"));
        let segments = path.trim_start_matches('/').split('/').filter(|part| !part.is_empty());
        let queries = query.split('&').filter(|part| !part.is_empty()).chain(topic.as_deref());
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes, kind, code, MessageId(0), token)
            .texts(OptionNumber::URI_PATH, segments)
            .texts(OptionNumber::URI_QUERY, queries)
            .finish()?;
        Ok(Self { bytes, token_bytes: plan.token_bytes })
    }

    /// Appends the request of `exchange`, with the payload that `payload` appends.
    pub(crate) fn write(
        &self,
        exchange: &Exchange,
        token: u64,
        output: &mut Vec<u8>,
        payload: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = output.len();
        output.extend_from_slice(&self.bytes);
        output[start + 2..start + TOKEN_AT].copy_from_slice(&exchange.message_id.to_be_bytes());
        let token_at = start + TOKEN_AT;
        let token = &token.to_be_bytes()[Token::MAX_BYTES - self.token_bytes..];
        output[token_at..token_at + self.token_bytes].copy_from_slice(token);
        // The marker before the payload, which an empty payload must not have (RFC 7252 §3).
        output.push(0xff);
        let marker_end = output.len();
        payload(output);
        if output.len() == marker_end {
            output.pop();
        }
    }

    /// Appends something that resembles a request: bits turned over, cut off, grown, or all noise.
    pub(crate) fn write_garbage(&self, random: &mut Random, output: &mut Vec<u8>) {
        let start = output.len();
        if random.below(4) == 0 {
            let length = random.below(64);
            random.append(length, output);
            return;
        }
        output.extend_from_slice(&self.bytes);
        output.push(0xff);
        random.append(8, output);
        for _ in 0..=random.below(8) {
            let at = start + random.below(output.len() - start);
            output[at] ^= 1 << random.below(8);
        }
        match random.below(3) {
            0 => output.truncate(start + random.below(output.len() - start)),
            1 => random.append(16, output),
            _ => {}
        }
    }

    /// Reads an answer; `None` where it is malformed.
    pub(crate) fn read(&self, datagram: &[u8]) -> Option<Reply> {
        let message = MessageRef::parse(datagram).ok()?;
        let token = message.token.as_bytes();
        let number = token.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Some(Reply {
            kind: message.message_type,
            code: message.code,
            message_id: message.id.0,
            token: (token.len() == self.token_bytes).then_some(number),
        })
    }
}

/// Appends the acknowledgement of a separate answer (RFC 7252 §5.2.2).
pub(crate) fn write_acknowledgement(message_id: u16, output: &mut Vec<u8>) {
    Encoder::empty(output, MessageType::Acknowledgement, MessageId(message_id));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exchanges::{Exchanges, Rules};
    use crate::plan::Method;

    fn exchange() -> (Exchanges, Exchange) {
        let rules = Rules {
            devices: 1,
            confirmable: true,
            retransmission: crate::Retransmission::default(),
            patience: Duration::from_secs(1),
            token_mask: 0,
            token_bytes: 8,
        };
        let mut exchanges = Exchanges::new(rules, Random::new(3));
        let exchange = exchanges.begin(Duration::ZERO, Duration::ZERO).unwrap();
        (exchanges, exchange)
    }

    #[test]
    fn a_request_says_what_the_plan_says() {
        let plan = Plan {
            method: Method::Put,
            path: "/data/in?a=1".to_owned(),
            topic: Some("field/7".to_owned()),
            token_bytes: 4,
            ..Plan::default()
        };
        let form = RequestForm::new(&plan).unwrap();
        let (_, exchange) = exchange();
        let mut bytes = Vec::new();
        form.write(&exchange, 0x0102_0304, &mut bytes, |out| out.extend_from_slice(b"hi"));
        let message = MessageRef::parse(&bytes).unwrap();
        assert_eq!(message.message_type, MessageType::Confirmable);
        assert_eq!(message.code, Code::PUT);
        assert_eq!(message.id, MessageId(exchange.message_id));
        assert_eq!(message.token.as_bytes(), [1, 2, 3, 4]);
        assert_eq!(message.payload, b"hi");
        let options: Vec<_> =
            message.options().map(|option| (option.number, option.as_str().unwrap())).collect();
        let (path, query) = (OptionNumber::URI_PATH, OptionNumber::URI_QUERY);
        assert_eq!(options, [(path, "data"), (path, "in"), (query, "a=1"), (query, "t=field/7")]);
    }

    #[test]
    fn an_empty_payload_has_no_marker() {
        let form = RequestForm::new(&Plan::default()).unwrap();
        let (_, exchange) = exchange();
        let mut bytes = Vec::new();
        form.write(&exchange, 7, &mut bytes, |_| {});
        assert!(MessageRef::parse(&bytes).unwrap().payload.is_empty());
    }

    #[test]
    fn an_answer_with_a_token_of_another_length_has_none_of_ours() {
        let form = RequestForm::new(&Plan::default()).unwrap();
        let mut bytes = Vec::new();
        let (kind, token) = (MessageType::NonConfirmable, Token::new(&[1, 2]).unwrap());
        Encoder::new(&mut bytes, kind, Code::CHANGED, MessageId(9), token).finish().unwrap();
        let reply = form.read(&bytes).unwrap();
        assert_eq!((reply.token, reply.message_id), (None, 9));
        assert_eq!(form.read(b"?"), None);
    }

    #[test]
    fn garbage_is_varied_and_mostly_malformed() {
        let form = RequestForm::new(&Plan::default()).unwrap();
        let mut random = Random::new(5);
        let mut malformed = 0;
        for _ in 0..1_000 {
            let mut bytes = Vec::new();
            form.write_garbage(&mut random, &mut bytes);
            malformed += usize::from(MessageRef::parse(&bytes).is_err());
        }
        assert!((300..1_000).contains(&malformed), "{malformed}");
    }
}
