//! One walk over the options of a message: which must be refused, and what the endpoint itself
//! needs to know (RFC 7252 §5.4).

use crate::hashing::fold;
use crate::message::ObserveAction;
use crate::wire::{Block, MessageRef, OptionNumber, OptionRef, uint_value};

/// What the endpoint needs of a message's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Review {
    /// Block1, of an upload.
    pub(crate) block1: Option<Block>,
    /// Block2, of a download.
    pub(crate) block2: Option<Block>,
    /// Size1, in bytes.
    pub(crate) size1: Option<u32>,
    /// Observe as it stands: an action in a request, a sequence number in a response.
    pub(crate) observe: Option<u32>,
    /// The bits of No-Response.
    pub(crate) no_response: u8,
    /// A digest of method and cache key: which resource and representation is meant. Blocks of
    /// one body agree in it; Request-Tag is part of it (RFC 9175 §3.3).
    pub(crate) resource: u64,
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A critical option that is unknown, repeated, or of a length not allowed (§5.4.1, §5.4.3,
    /// §5.4.5).
    Option(OptionNumber),
    /// A block option with the reserved size (RFC 7959 §2.2).
    Block,
    /// A request to forward (§5.7.2).
    Proxy,
}

impl Review {
    pub(crate) fn observe_action(&self) -> Option<ObserveAction> {
        match self.observe {
            Some(0) => Some(ObserveAction::Register),
            Some(1) => Some(ObserveAction::Deregister),
            _ => None,
        }
    }
}

/// Critical options that the endpoint or every owner honours. Uri-Host and Uri-Port are accepted
/// whatever they say: a device reaches one gateway under many names.
const UNDERSTOOD: [OptionNumber; 7] = [
    OptionNumber::URI_HOST,
    OptionNumber::URI_PORT,
    OptionNumber::URI_PATH,
    OptionNumber::URI_QUERY,
    OptionNumber::ACCEPT,
    OptionNumber::BLOCK2,
    OptionNumber::BLOCK1,
];

/// Walks the options.
///
/// # Errors
/// The first reason to refuse the message.
pub(crate) fn review(
    message: &MessageRef<'_>,
    understood: &[OptionNumber],
    forwards: bool,
) -> Result<Review, Refusal> {
    let mut review = Review { resource: u64::from(message.code.as_byte()), ..Review::default() };
    let mut before = None;
    for option in message.options() {
        let number = option.number;
        let repeated = before == Some(number);
        before = Some(number);
        let recognised = number.format().is_some_and(|(lengths, repeats)| {
            lengths.contains(&option.value.len()) && (repeats || !repeated)
        });
        if !recognised {
            if number.is_critical() && !(number.format().is_none() && understood.contains(&number))
            {
                return Err(Refusal::Option(number));
            }
            continue;
        }
        if matches!(number, OptionNumber::PROXY_URI | OptionNumber::PROXY_SCHEME) {
            if !forwards {
                return Err(Refusal::Proxy);
            }
        } else if number.is_critical()
            && !UNDERSTOOD.contains(&number)
            && !understood.contains(&number)
        {
            return Err(Refusal::Option(number));
        }
        note(&mut review, &option)?;
    }
    Ok(review)
}

/// Keeps what the endpoint needs of one recognised option.
fn note(review: &mut Review, option: &OptionRef<'_>) -> Result<(), Refusal> {
    match option.number {
        OptionNumber::BLOCK1 => {
            review.block1 = Some(Block::parse(option.value).map_err(|_| Refusal::Block)?);
        }
        OptionNumber::BLOCK2 => {
            review.block2 = Some(Block::parse(option.value).map_err(|_| Refusal::Block)?);
        }
        OptionNumber::SIZE1 => review.size1 = uint_value(option.value),
        OptionNumber::OBSERVE => review.observe = uint_value(option.value),
        // At most one byte long.
        OptionNumber::NO_RESPONSE => review.no_response = option.value.first().map_or(0, |b| *b),
        number if number.is_no_cache_key() => {}
        number => {
            review.resource = fold(review.resource ^ u64::from(number.0), 0x9e37_79b9_7f4a_7c15);
            for chunk in option.value.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                let word = u64::from_le_bytes(word);
                review.resource =
                    fold(review.resource ^ word, 0xd6e8_feb8_6659_fd93).rotate_left(17) ^ word;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Code, Encoder, MessageId, MessageType, Token};

    fn reviewed(options: &[(u16, &[u8])], understood: &[u16]) -> Result<Review, Refusal> {
        let mut bytes = Vec::new();
        let (con, id) = (MessageType::Confirmable, MessageId(1));
        let encoder = Encoder::new(&mut bytes, con, Code::GET, id, Token::EMPTY);
        options
            .iter()
            .fold(encoder, |encoder, (number, value)| encoder.option(OptionNumber(*number), value))
            .finish()
            .unwrap();
        let understood: Vec<_> = understood.iter().map(|number| OptionNumber(*number)).collect();
        review(&MessageRef::parse(&bytes).unwrap(), &understood, false)
    }

    #[test]
    fn unknown_critical_options_are_refused_and_elective_ones_skipped() {
        assert_eq!(reviewed(&[(9_999, b"x")], &[]), Err(Refusal::Option(OptionNumber(9_999))));
        assert!(reviewed(&[(9_999, b"x")], &[9_999]).is_ok());
        assert!(reviewed(&[(9_998, b"x")], &[]).is_ok());
        assert_eq!(reviewed(&[(1, b"x")], &[]), Err(Refusal::Option(OptionNumber::IF_MATCH)));
        assert!(reviewed(&[(1, b"x")], &[1]).is_ok());
    }

    #[test]
    fn repeated_and_overlong_critical_options_count_as_unknown() {
        let twice = reviewed(&[(17, b""), (17, b"")], &[]);
        assert_eq!(twice, Err(Refusal::Option(OptionNumber::ACCEPT)));
        let long = reviewed(&[(7, b"abc")], &[]);
        assert_eq!(long, Err(Refusal::Option(OptionNumber::URI_PORT)));
        assert!(reviewed(&[(11, b"a"), (11, b"b"), (12, b"abc"), (12, b"")], &[]).is_ok());
    }

    #[test]
    fn forwarding_and_reserved_blocks_are_refused() {
        assert_eq!(reviewed(&[(35, b"coap://x")], &[]), Err(Refusal::Proxy));
        assert_eq!(reviewed(&[(27, &[7])], &[]), Err(Refusal::Block));
    }

    #[test]
    fn blocks_of_one_body_name_one_resource() {
        let path = (11, &b"a"[..]);
        let first = reviewed(&[path, (27, &[0x0e])], &[]).unwrap();
        let second = reviewed(&[path, (27, &[0x1e]), (60, &[1])], &[]).unwrap();
        let tagged = reviewed(&[path, (27, &[0x1e]), (292, &[1])], &[]).unwrap();
        assert_eq!(first.resource, second.resource);
        assert_ne!(first.resource, tagged.resource);
        assert_ne!(first.resource, reviewed(&[(11, b"b")], &[]).unwrap().resource);
    }
}
