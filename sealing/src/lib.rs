//! What must not lie on a disk as it is: the data key, and what is sealed under it.
//!
//! One data key, in a file of its own or from the configuration ([`KeySource`]), is the root of
//! everything that a gateway seals. A [`Vault`] seals under the data key itself; a [`Sealer`] under
//! a key that is derived for one purpose, so that what was sealed for one owner opens for no other.
//!
//! Not here: what is sealed, and where it lies.

mod data_key;
mod sealer;
mod vault;

pub use data_key::{DATA_KEY_HEX_CHARS, DataKeyError, KeySource};
pub use sealer::{SealError, Sealer, SealerError};
pub use vault::{DATA_KEY_BYTES, Unopened, Vault};
