//! Bytes and messages: a strict, zero-copy codec of RFC 7252 §3. Checked parse, exact emit, no
//! policy: what a message means for an endpoint is decided elsewhere.

mod block;
mod code;
mod content_format;
mod encode;
mod header;
mod option;
mod option_list;
mod parse;

pub use block::{Block, InvalidBlock};
pub use code::Code;
pub use content_format::ContentFormat;
pub use encode::{EncodeError, Encoder, OPTION_VALUE_MAX_BYTES};
pub use header::{MessageId, MessageType, Token, TokenTooLong};
pub use option::{OptionNumber, OptionRef, UintValue, uint_value};
pub use option_list::{OPTION_LIST_MAX_BYTES, OptionList, OptionListFull};
pub use parse::{Malformed, MessageRef, Options, ParseError};
