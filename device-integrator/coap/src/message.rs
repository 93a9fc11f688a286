//! Requests and responses as the owner of an endpoint sees them.

use std::time::Duration;

use crate::client::RequestId;
use crate::deduplication::ExchangeKey;
use crate::observe::ObservationId;
use crate::wire::{
    Block, Code, ContentFormat, MessageId, OptionList, OptionListFull, OptionNumber, Token,
};

/// A message that waits for the owner: a request for its response, a notification for its
/// acknowledgement. It holds what an answer needs; dropping it leaves the peer without one.
#[derive(Debug)]
pub struct Exchange<P> {
    pub(crate) peer: P,
    pub(crate) key: ExchangeKey,
    pub(crate) id: MessageId,
    pub(crate) token: Token,
    pub(crate) confirmable: bool,
    pub(crate) acknowledged: bool,
    pub(crate) no_response: u8,
    pub(crate) block1: Option<Block>,
    pub(crate) block2: Option<Block>,
    pub(crate) resource: u64,
    pub(crate) observe: Option<ObserveAction>,
    pub(crate) observation: Option<ObservationId>,
}

impl<P: Copy> Exchange<P> {
    /// Who sent the message.
    pub fn peer(&self) -> P {
        self.peer
    }

    /// Its message id.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Its token.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Whether it was a CON.
    pub fn is_confirmable(&self) -> bool {
        self.confirmable
    }
}

/// What a request asks about observation (RFC 7641 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObserveAction {
    /// Observe = 0.
    Register,
    /// Observe = 1; the endpoint has ended the observation already.
    Deregister,
}

/// A request of a peer, complete with its body.
#[derive(Debug)]
pub struct IncomingRequest<P> {
    /// To be given back with the response.
    pub exchange: Exchange<P>,
    /// The method.
    pub method: Code,
    /// All options as they came. Prefer the accessors, which leave out malformed ones.
    pub options: OptionList,
    /// The body, assembled if it came in blocks.
    pub payload: Vec<u8>,
    /// Whether the peer wants to begin or end an observation.
    pub observe: Option<ObserveAction>,
}

impl<P: Copy> IncomingRequest<P> {
    /// Who sent it.
    pub fn peer(&self) -> P {
        self.exchange.peer
    }

    /// The segments of the path; one that is not UTF-8 comes as `None`.
    pub fn path(&self) -> impl Iterator<Item = Option<&str>> {
        self.texts(OptionNumber::URI_PATH)
    }

    /// The parts of the query; one that is not UTF-8 comes as `None`.
    pub fn queries(&self) -> impl Iterator<Item = Option<&str>> {
        self.texts(OptionNumber::URI_QUERY)
    }

    /// The format of the payload.
    pub fn content_format(&self) -> Option<ContentFormat> {
        self.options
            .recognised_uint(OptionNumber::CONTENT_FORMAT)
            .and_then(ContentFormat::from_uint)
    }

    /// Which block of the response is asked for (RFC 7959 §2.2).
    pub fn block(&self) -> Option<Block> {
        self.exchange.block2
    }

    /// The format wanted for the response.
    pub fn accept(&self) -> Option<ContentFormat> {
        self.options.recognised_uint(OptionNumber::ACCEPT).and_then(ContentFormat::from_uint)
    }

    /// The value of Echo (RFC 9175 §2), to be verified with [`crate::Echo`].
    pub fn echo(&self) -> Option<&[u8]> {
        self.options.recognised(OptionNumber::ECHO)
    }

    fn texts(&self, number: OptionNumber) -> impl Iterator<Item = Option<&str>> {
        self.options
            .iter()
            .filter(move |option| option.number == number)
            .map(|option| option.as_str())
    }
}

/// A response or a notification to be sent.
///
/// Before a peer has proved its address, keep what it gets within three times its request or 136
/// bytes (RFC 9175 §2.4): the endpoint's own error responses do, the rest is the owner's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The response code.
    pub code: Code,
    /// The format of the payload.
    pub content_format: Option<ContentFormat>,
    /// How long it stays fresh, in seconds; with an error of overload, when to come back.
    pub max_age_seconds: Option<u32>,
    /// Further options.
    pub options: OptionList,
    /// The body; a large one is sent in blocks.
    pub payload: Vec<u8>,
}

impl Response {
    /// A response without a body.
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            content_format: None,
            max_age_seconds: None,
            options: OptionList::new(),
            payload: Vec::new(),
        }
    }

    /// With a body.
    #[must_use]
    pub fn with_payload(mut self, format: ContentFormat, payload: impl Into<Vec<u8>>) -> Self {
        self.content_format = Some(format);
        self.payload = payload.into();
        self
    }

    /// With a text for a person (RFC 7252 §5.5.2), which has no format.
    #[must_use]
    pub fn with_diagnostic(mut self, text: &str) -> Self {
        self.payload = text.into();
        self
    }

    /// With Max-Age.
    #[must_use]
    pub fn with_max_age(mut self, seconds: u32) -> Self {
        self.max_age_seconds = Some(seconds);
        self
    }

    /// With a further option.
    ///
    /// # Errors
    /// The options are too long together.
    pub fn with_option(
        mut self,
        number: OptionNumber,
        value: &[u8],
    ) -> Result<Self, OptionListFull> {
        self.options.push(number, value)?;
        Ok(self)
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.payload.is_empty()
            && self.options.is_empty()
            && self.content_format.is_none()
            && self.max_age_seconds.is_none()
    }
}

/// A request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Code,
    /// Options, without Observe and the block options, which the endpoint sets.
    pub options: OptionList,
    /// The body; a large one is sent in blocks.
    pub payload: Vec<u8>,
    /// CON or NON.
    pub confirmable: bool,
    /// Whether to observe the resource (RFC 7641).
    pub observe: bool,
    /// How long to wait for the response after it was sent, at most. `None`: the exchange
    /// lifetime of 247 s.
    pub timeout: Option<Duration>,
    /// The token of its first message, for one that ends or refreshes an observation (RFC 7641
    /// §3.6) or that the owner must know before it is sent, from [`crate::Endpoint::token`].
    /// `None`: a new one.
    pub token: Option<Token>,
}

impl Request {
    /// A confirmable request without options and body.
    pub const fn new(method: Code) -> Self {
        Self {
            method,
            options: OptionList::new(),
            payload: Vec::new(),
            confirmable: true,
            observe: false,
            timeout: None,
            token: None,
        }
    }
}

/// A response to a request of ours, or a notification.
#[derive(Debug)]
pub struct IncomingResponse<P> {
    /// The request that it answers.
    pub request: RequestId,
    /// Who sent it.
    pub peer: P,
    /// The response code.
    pub code: Code,
    /// All options of its (first) message.
    pub options: OptionList,
    /// The body, collected if it came in blocks.
    pub payload: Vec<u8>,
    /// The sequence number of a notification: the observation lasts. `None`: the last response.
    pub sequence: Option<u32>,
    /// A notification that waits for [`crate::Endpoint::acknowledge`], to be given once what it
    /// says is safe; the peer repeats it until then.
    pub notification: Option<Exchange<P>>,
}

impl<P> IncomingResponse<P> {
    /// The format of the payload.
    pub fn content_format(&self) -> Option<ContentFormat> {
        self.options
            .recognised_uint(OptionNumber::CONTENT_FORMAT)
            .and_then(ContentFormat::from_uint)
    }
}

/// A response that answers no request under way: a notification of an observation that the owner
/// keeps ([`crate::Config::owner_keeps_observations`]), or a late response.
#[derive(Debug)]
pub struct IncomingNotification<P> {
    /// To be given back: to [`crate::Endpoint::acknowledge`] once what it says is safe, until then
    /// the peer repeats a CON; or to [`crate::Endpoint::reject`] if nobody wants it.
    pub exchange: Exchange<P>,
    /// The response code.
    pub code: Code,
    /// All options.
    pub options: OptionList,
    /// The payload.
    pub payload: Vec<u8>,
    /// The sequence number (RFC 7641 §3.4).
    pub sequence: Option<u32>,
    /// Which part of the body the payload is; if more follow, they are to be asked for.
    pub block2: Option<Block>,
}

impl<P> IncomingNotification<P> {
    /// The format of the payload.
    pub fn content_format(&self) -> Option<ContentFormat> {
        self.options
            .recognised_uint(OptionNumber::CONTENT_FORMAT)
            .and_then(ContentFormat::from_uint)
    }

    /// Whether the payload is the beginning of a body, or a part of it.
    pub fn is_partial(&self) -> bool {
        self.block2.is_some_and(|block| block.more || block.number > 0)
    }
}
