//! Sessions as bytes: asleep in memory, and saved by the owner.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::ffi::Snapshot;
use crate::{IDENTITY_BYTES_MAX, SessionId};

/// The largest sequence number of a record (RFC 6347 §4.1: 48 bits).
pub(crate) const SEQUENCE_MAX: u64 = (1 << 48) - 1;
/// Records that a session may send between two savings. Per generation its sequence numbers jump by
/// twice as many, see [`Config::generation`](crate::Config::generation). 2^18 records are 5 s at
/// 50,000 per second; 2^29 generations use up the numbers: 17 years where one is a second.
pub const SEQUENCE_JUMP: u64 = 1 << 18;

const FORMAT: u8 = 2;
const FLAG_ENCRYPT_THEN_MAC: u8 = 1;
const FLAG_IN_CID: u8 = 2;
/// Bytes of our connection IDs.
pub(crate) const CID_BYTES: usize = 8;

/// The bytes of a sleeping session: 140, and the connection ID of the peer.
pub(crate) fn fold(snapshot: &Snapshot) -> Zeroizing<Box<[u8]>> {
    let mut bytes = Vec::with_capacity(140 + usize::from(snapshot.out_cid_length));
    write(snapshot, &mut bytes);
    Zeroizing::new(bytes.into_boxed_slice())
}

/// The inverse of [`fold`]; `id` is our connection ID, if there is one.
pub(crate) fn unfold(bytes: &[u8], id: [u8; CID_BYTES]) -> Option<Snapshot> {
    let mut reader = Reader(bytes);
    let snapshot = read(&mut reader, id)?;
    reader.0.is_empty().then_some(snapshot)
}

fn write(snapshot: &Snapshot, to: &mut Vec<u8>) {
    let mut flags = 0;
    if snapshot.encrypt_then_mac != 0 {
        flags |= FLAG_ENCRYPT_THEN_MAC;
    }
    if snapshot.in_cid_length != 0 {
        flags |= FLAG_IN_CID;
    }
    to.extend_from_slice(&snapshot.suite.to_be_bytes());
    to.push(flags);
    to.push(snapshot.out_cid_length);
    to.extend_from_slice(&snapshot.out_cid[..usize::from(snapshot.out_cid_length)]);
    to.extend_from_slice(&snapshot.master);
    to.extend_from_slice(&snapshot.randoms);
    to.extend_from_slice(&snapshot.window_top.to_be_bytes());
    to.extend_from_slice(&snapshot.window.to_be_bytes());
    to.extend_from_slice(&snapshot.out_counter.to_be_bytes());
}

fn read(reader: &mut Reader<'_>, id: [u8; CID_BYTES]) -> Option<Snapshot> {
    let mut snapshot = Snapshot::empty();
    snapshot.suite = u16::from_be_bytes(reader.array()?);
    let [flags, out_cid_length] = reader.array()?;
    snapshot.encrypt_then_mac = u8::from(flags & FLAG_ENCRYPT_THEN_MAC != 0);
    if flags & FLAG_IN_CID != 0 {
        snapshot.in_cid_length = 8;
        snapshot.in_cid[..CID_BYTES].copy_from_slice(&id);
    }
    snapshot.out_cid_length = out_cid_length;
    let length = usize::from(out_cid_length);
    snapshot.out_cid.get_mut(..length)?.copy_from_slice(reader.take(length)?);
    snapshot.master = reader.array()?;
    snapshot.randoms = reader.array()?;
    snapshot.window_top = u64::from_be_bytes(reader.array()?);
    snapshot.window = u64::from_be_bytes(reader.array()?);
    snapshot.out_counter = u64::from_be_bytes(reader.array()?);
    Some(snapshot)
}

/// What the owner saves of a session.
pub(crate) struct Saved {
    pub(crate) id: u64,
    pub(crate) generation: u32,
    pub(crate) peer: SocketAddr,
    pub(crate) identity: Arc<[u8]>,
    /// Of the key.
    pub(crate) revision: u64,
    pub(crate) snapshot: Snapshot,
}

/// Which of several engines takes a saved session, see [`saved_place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedPlace {
    /// The one whose [`Config::shard`](crate::Config::shard) it is: records name it.
    Shard(u8),
    /// The one that gets the datagrams of this address.
    Address(SocketAddr),
}

/// The session that [`Engine::import`](crate::Engine::import) makes of these bytes.
pub fn saved_session(bytes: &[u8]) -> Option<SessionId> {
    Some(SessionId::from_u64(Saved::decode(bytes)?.id))
}

/// Where saved bytes belong; `None`: they are no saved session.
pub fn saved_place(bytes: &[u8]) -> Option<SavedPlace> {
    let saved = Saved::decode(bytes)?;
    Some(match saved.snapshot.in_cid_length {
        0 => SavedPlace::Address(saved.peer),
        _ => SavedPlace::Shard(saved.id.to_be_bytes()[0]),
    })
}

impl Saved {
    /// At most 342 bytes; with the identity of a SIM and an IPv4 address 202.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Enough for all that follows, with an IPv6 address and the longest connection ID: a vector
        // that grows leaves its keys behind in memory that nobody zeroes.
        let mut bytes = Vec::with_capacity(216 + self.identity.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.id.to_be_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        match self.peer.ip() {
            IpAddr::V4(address) => {
                bytes.push(4);
                bytes.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                bytes.push(6);
                bytes.extend_from_slice(&address.octets());
            }
        }
        bytes.extend_from_slice(&self.peer.port().to_be_bytes());
        // An identity has at most 128 bytes.
        bytes.push(u8::try_from(self.identity.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(&self.identity);
        bytes.extend_from_slice(&self.revision.to_be_bytes());
        write(&self.snapshot, &mut bytes);
        Zeroizing::new(bytes)
    }

    /// `None`: not what [`Saved::encode`] makes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.array()? != [FORMAT] {
            return None;
        }
        let id: [u8; CID_BYTES] = reader.array()?;
        let generation = u32::from_be_bytes(reader.array()?);
        let address: IpAddr = match reader.array()? {
            [4] => IpAddr::from(reader.array::<4>()?),
            [6] => IpAddr::from(reader.array::<16>()?),
            _ => return None,
        };
        let port = u16::from_be_bytes(reader.array()?);
        let [length] = reader.array()?;
        if usize::from(length) > IDENTITY_BYTES_MAX {
            return None;
        }
        let identity = reader.take(length.into())?.into();
        let revision = u64::from_be_bytes(reader.array()?);
        let snapshot = read(&mut reader, id)?;
        let peer = SocketAddr::new(address, port);
        let id = u64::from_be_bytes(id);
        let rest = reader.0;
        let saved = Self { id, generation, peer, identity, revision, snapshot };
        rest.is_empty().then_some(saved)
    }
}

/// Moves the sequence number of our records ahead by a number of generations. `None`: there are
/// no numbers left.
///
/// Twice [`SEQUENCE_JUMP`] for each: what the owner was told last need not be durable yet, so that
/// as many records may have gone before as after.
pub(crate) fn jump(out_counter: u64, generations: u32) -> Option<u64> {
    let sequence = (out_counter & SEQUENCE_MAX) + u64::from(generations) * 2 * SEQUENCE_JUMP;
    // Enough must be left to be useful until the next start.
    (sequence + SEQUENCE_JUMP <= SEQUENCE_MAX).then_some(out_counter & !SEQUENCE_MAX | sequence)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn saved() -> Saved {
        let mut snapshot = Snapshot::empty();
        snapshot.suite = 0xC0A8;
        snapshot.in_cid_length = 8;
        snapshot.in_cid[..8].copy_from_slice(&7_u64.to_be_bytes());
        snapshot.out_cid_length = 32;
        snapshot.out_cid.copy_from_slice(&[b'o'; 32]);
        snapshot.master = [5; 48];
        snapshot.out_counter = 1 << 48 | 99;
        Saved {
            id: 7,
            generation: 3,
            peer: "[2001:db8::1]:5684".parse().unwrap(),
            identity: vec![b'8'; 128].into(),
            revision: 9,
            snapshot,
        }
    }

    #[test]
    fn a_saved_session_comes_back_and_is_short() {
        let bytes = saved().encode();
        assert!(bytes.len() <= 342, "{} bytes", bytes.len());
        assert_eq!(bytes.capacity(), 216 + 128, "it never grew");
        let back = Saved::decode(&bytes).unwrap();
        assert_eq!(back.encode(), bytes);
        assert_eq!(back.snapshot.in_cid[..8], 7_u64.to_be_bytes());
        for length in 0..bytes.len() {
            assert!(Saved::decode(&bytes[..length]).is_none());
        }
    }

    #[test]
    fn a_session_with_a_connection_id_belongs_where_that_says() {
        let mut saved = saved();
        assert_eq!(saved_place(&saved.encode()), Some(SavedPlace::Shard(0)));
        saved.snapshot.in_cid_length = 0;
        assert_eq!(saved_place(&saved.encode()), Some(SavedPlace::Address(saved.peer)));
        assert_eq!(saved_place(b"no session"), None);
    }

    #[test]
    fn a_jump_keeps_the_epoch_and_ends_with_the_numbers() {
        assert_eq!(jump(1 << 48 | 5, 2), Some(1 << 48 | (5 + (4 << 18))));
        assert_eq!(jump(1 << 48 | SEQUENCE_MAX, 1), None);
        assert_eq!(jump(1 << 48, u32::MAX), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Saved::decode(&bytes);
            let _ = unfold(&bytes, [0; 8]);
        }
    }
}
