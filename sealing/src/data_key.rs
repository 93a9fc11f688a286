//! The data key: where it comes from.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::vault::DATA_KEY_BYTES;

/// Hexadecimal digits of a data key as text.
pub const DATA_KEY_HEX_CHARS: usize = 2 * DATA_KEY_BYTES;

/// Permissions that a key file must not grant: writing to the group, anything to others.
const TOO_OPEN: u32 = 0o027;

/// Where the data key comes from.
#[derive(Clone)]
pub enum KeySource {
    /// A file with [`DATA_KEY_HEX_CHARS`] hexadecimal digits; made at the first start.
    File(PathBuf),
    /// The digits themselves, from the environment.
    Text(Zeroizing<String>),
}

/// Why there is no data key. Never holds any of it.
#[derive(Debug, Error)]
pub enum DataKeyError {
    /// The file cannot be read or made.
    #[error("key file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Keys are stored and the file is not there: a new one would lock them up for good.
    #[error("key file {path} is missing, and keys are stored that only it opens")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Others may read or write the file.
    #[error("key file {path} has permissions {mode:03o}, allowed: 600, 400, 640 or 440")]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another length.
    #[error("data key has {found} characters, allowed: {DATA_KEY_HEX_CHARS} hexadecimal digits")]
    Length {
        /// Characters found.
        found: usize,
    },
    /// Not hexadecimal.
    #[error("data key holds a character at position {position} that is not hexadecimal")]
    Digit {
        /// Counted from 1.
        position: usize,
    },
    /// The system has no randomness.
    #[error("no data key can be made: {0}")]
    Random(getrandom::Error),
}

impl fmt::Debug for KeySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => formatter.debug_tuple("File").field(path).finish(),
            Self::Text(_) => formatter.write_str("Text(..)"),
        }
    }
}

impl KeySource {
    /// The data key. A file that is not there is made, unless it is `needed`.
    ///
    /// # Errors
    /// Where it is not there and needed, cannot be made, or is no data key.
    pub fn load(&self, needed: bool) -> Result<Zeroizing<[u8; DATA_KEY_BYTES]>, DataKeyError> {
        match self {
            Self::Text(text) => parse(text),
            Self::File(path) => match read(path) {
                Ok(text) => parse(text.trim_end()),
                Err(DataKeyError::File { path, source })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    if needed {
                        Err(DataKeyError::Missing { path })
                    } else {
                        make(&path)
                    }
                }
                Err(other) => Err(other),
            },
        }
    }
}

type DataKey = Zeroizing<[u8; DATA_KEY_BYTES]>;

fn read(path: &Path) -> Result<Zeroizing<String>, DataKeyError> {
    let failed = |source| DataKeyError::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & TOO_OPEN != 0 {
        return Err(DataKeyError::TooOpen { path: path.to_owned(), mode });
    }
    // A key with its line end; whatever is longer is no key.
    let mut bytes = Zeroizing::new([0; 2 * DATA_KEY_HEX_CHARS]);
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]).map_err(failed)? {
            0 => break,
            more => length += more,
        }
    }
    let text = bytes[..length].iter().map(|byte| char::from(*byte)).collect();
    Ok(Zeroizing::new(text))
}

fn parse(text: &str) -> Result<DataKey, DataKeyError> {
    if let Some(position) = text.chars().position(|char| !char.is_ascii_hexdigit()) {
        return Err(DataKeyError::Digit { position: position + 1 });
    }
    if text.len() != DATA_KEY_HEX_CHARS {
        return Err(DataKeyError::Length { found: text.len() });
    }
    let mut key = Zeroizing::new([0; DATA_KEY_BYTES]);
    let digit = |char: char| char.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut digits = text.chars().filter_map(digit);
    for byte in key.iter_mut() {
        let (high, low) = (digits.next().unwrap_or(0), digits.next().unwrap_or(0));
        *byte = high << 4 | low;
    }
    Ok(key)
}

/// Makes the file with a new key. It appears with its whole content or not at all, also when the
/// power goes: an empty file would stop the next start.
fn make(path: &Path) -> Result<DataKey, DataKeyError> {
    let mut key = Zeroizing::new([0; DATA_KEY_BYTES]);
    getrandom::fill(&mut *key).map_err(DataKeyError::Random)?;
    write(path, &key).map_err(|source| DataKeyError::File { path: path.to_owned(), source })?;
    Ok(key)
}

fn write(path: &Path, key: &[u8; DATA_KEY_BYTES]) -> io::Result<()> {
    let mut text = Zeroizing::new(String::with_capacity(DATA_KEY_HEX_CHARS + 1));
    for byte in key {
        for digit in [byte >> 4, byte & 0x0f] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text.push('\n');
    let new = path.with_extension("new");
    // What a start left behind that ended in the middle.
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // Unlike a rename, a link never replaces the key of a process that started just before.
    std::fs::hard_link(&new, path)?;
    std::fs::remove_file(&new)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_file_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.key");
        let source = KeySource::File(path.clone());
        let made = source.load(false).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(source.load(true).unwrap(), made);
        let text = Zeroizing::new(std::fs::read_to_string(&path).unwrap().trim().to_owned());
        assert_eq!(KeySource::Text(text).load(true).unwrap(), made);
    }

    #[test]
    fn what_cannot_be_the_key_is_refused_without_a_word_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.key");
        let load = || KeySource::File(path.clone()).load(true).unwrap_err();
        assert!(matches!(load(), DataKeyError::Missing { .. }));
        std::fs::write(&path, "abc\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let open = load().to_string();
        assert!(open.ends_with("has permissions 644, allowed: 600, 400, 640 or 440"), "{open}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let short = "data key has 3 characters, allowed: 64 hexadecimal digits";
        assert_eq!(load().to_string(), short);
        std::fs::write(&path, "x".repeat(64)).unwrap();
        assert!(load().to_string().contains("position 1"));
    }
}
