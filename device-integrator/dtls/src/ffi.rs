//! The only unsafe code of this crate: what `c/session.h` declares, and a safe face for it.
//!
//! The rules that make it sound:
//! * a [`Session`] keeps its [`Context`] alive, and a context never changes after it is made;
//! * a session is used by one thread at a time (`&mut self`; `Send`, not `Sync`);
//! * callbacks happen only within a call of ours, with the [`Io`] that this call was given, which
//!   the C side forgets before the call returns. They catch every panic.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;

use zeroize::Zeroize;

/// Everything that a session is made of; the same as `dtls_snapshot`.
#[repr(C)]
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) window_top: u64,
    pub(crate) window: u64,
    /// The epoch in the upper 16 bits, the sequence number of the next record below.
    pub(crate) out_counter: u64,
    pub(crate) suite: u16,
    pub(crate) encrypt_then_mac: u8,
    pub(crate) in_cid_length: u8,
    pub(crate) out_cid_length: u8,
    pub(crate) master: [u8; 48],
    pub(crate) randoms: [u8; 64],
    pub(crate) in_cid: [u8; 32],
    pub(crate) out_cid: [u8; 32],
}

impl Snapshot {
    pub(crate) fn empty() -> Self {
        Self {
            window_top: 0,
            window: 0,
            out_counter: 0,
            suite: 0,
            encrypt_then_mac: 0,
            in_cid_length: 0,
            out_cid_length: 0,
            master: [0; 48],
            randoms: [0; 64],
            in_cid: [0; 32],
            out_cid: [0; 32],
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.master.zeroize();
    }
}

/// What an abbreviated handshake starts from; the same as `dtls_resumption`.
#[repr(C)]
#[derive(Clone)]
pub(crate) struct Resumption {
    pub(crate) suite: u16,
    pub(crate) encrypt_then_mac: u8,
    pub(crate) id_length: u8,
    pub(crate) id: [u8; 32],
    pub(crate) master: [u8; 48],
}

impl Resumption {
    pub(crate) fn empty() -> Self {
        Self { suite: 0, encrypt_then_mac: 0, id_length: 0, id: [0; 32], master: [0; 48] }
    }
}

impl Drop for Resumption {
    fn drop(&mut self) {
        self.master.zeroize();
    }
}

#[repr(C)]
struct Callbacks {
    send: extern "C" fn(*mut c_void, *const u8, usize) -> c_int,
    receive: extern "C" fn(*mut c_void, *mut u8, usize) -> usize,
    key: extern "C" fn(*mut c_void, *const u8, usize, *mut u8, usize) -> usize,
    recall: extern "C" fn(*mut c_void, *const u8, usize, *mut Resumption) -> c_int,
    remember: extern "C" fn(*mut c_void, *const Resumption),
}

#[repr(C)]
struct RawContext {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawSession {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn dtls_context_new(
        is_client: c_int,
        suites: *const u16,
        count: usize,
        callbacks: *const Callbacks,
        cid_length: usize,
        retransmit_first_ms: u32,
        retransmit_last_ms: u32,
    ) -> *mut RawContext;
    fn dtls_context_free(context: *mut RawContext);
    fn dtls_context_set_key(
        context: *mut RawContext,
        key: *const u8,
        key_length: usize,
        identity: *const u8,
        identity_length: usize,
    ) -> c_int;
    fn dtls_session_new(context: *const RawContext, cid: *const u8) -> *mut RawSession;
    fn dtls_session_free(session: *mut RawSession);
    fn dtls_session_resume(session: *mut RawSession, resumption: *const Resumption) -> c_int;
    fn dtls_session_step(
        session: *mut RawSession,
        io: *mut c_void,
        now_ms: u64,
        out: *mut u8,
        room: usize,
        length: *mut usize,
    ) -> c_int;
    fn dtls_session_write(
        session: *mut RawSession,
        io: *mut c_void,
        now_ms: u64,
        bytes: *const u8,
        length: usize,
    ) -> c_int;
    fn dtls_session_close(session: *mut RawSession, io: *mut c_void, now_ms: u64) -> c_int;
    fn dtls_session_timer(session: *const RawSession) -> u64;
    fn dtls_session_is_over(session: *const RawSession) -> c_int;
    fn dtls_session_expects_finished(session: *const RawSession) -> c_int;
    fn dtls_session_check(session: *const RawSession, record: *mut u8, length: usize) -> c_int;
    fn dtls_session_holds_flight(session: *const RawSession) -> c_int;
    fn dtls_session_window_top(session: *const RawSession) -> u64;
    fn dtls_session_window(session: *const RawSession) -> u64;
    fn dtls_session_out_counter(session: *const RawSession) -> u64;
    fn dtls_session_save(session: *const RawSession, snapshot: *mut Snapshot) -> c_int;
    fn dtls_session_restore(
        context: *const RawContext,
        snapshot: *const Snapshot,
    ) -> *mut RawSession;
    fn dtls_session_resumption(session: *const RawSession, resumption: *mut Resumption) -> c_int;
    fn dtls_random(bytes: *mut u8, length: usize) -> c_int;
    fn dtls_hmac_sha256(key: *const u8, bytes: *const u8, length: usize, mac: *mut u8) -> c_int;
}

/// What the library asks for while it works.
pub(crate) trait Host {
    /// The key of an identity, into `room`; its length.
    fn key(&mut self, identity: &[u8], room: &mut [u8]) -> usize;
    /// A session of before, by its id.
    fn recall(&mut self, id: &[u8]) -> Option<Resumption>;
    /// A session that may be resumed.
    fn remember(&mut self, resumption: &Resumption);
    /// A datagram to send.
    fn send(&mut self, bytes: &[u8]);
}

/// The surroundings of one call.
pub(crate) struct Io<'d, 'h> {
    /// The datagram that arrived; taken by the first read.
    pub(crate) datagram: &'d [u8],
    /// Who answers.
    pub(crate) host: &'h mut (dyn Host + 'h),
}

/// The `Io` of the call in progress.
///
/// # Safety
/// `io` must be the pointer that one of the calls below passed in, during that call.
unsafe fn io_of<'a>(io: *mut c_void) -> &'a mut Io<'a, 'a> {
    // SAFETY: the calls below pass a pointer to an `Io` that outlives them and that nobody else
    // uses meanwhile; C hands it on to one callback at a time.
    unsafe { &mut *io.cast::<Io<'a, 'a>>() }
}

extern "C" fn on_send(io: *mut c_void, bytes: *const u8, length: usize) -> c_int {
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: called by C during a call of ours, with `length` readable bytes.
        let (io, bytes) = unsafe { (io_of(io), std::slice::from_raw_parts(bytes, length)) };
        io.host.send(bytes);
    }));
    c_int::from(result.is_err())
}

extern "C" fn on_receive(io: *mut c_void, bytes: *mut u8, room: usize) -> usize {
    // SAFETY: called by C during a call of ours.
    let io = unsafe { io_of(io) };
    // What does not fit cannot be a record of ours: the rest is cut, as a socket would.
    let datagram = std::mem::take(&mut io.datagram);
    let length = datagram.len().min(room);
    // SAFETY: C gives `room` writable bytes, written before or not, that are not the datagram.
    unsafe { bytes.copy_from_nonoverlapping(datagram.as_ptr(), length) };
    length
}

extern "C" fn on_key(
    io: *mut c_void,
    identity: *const u8,
    length: usize,
    key: *mut u8,
    room: usize,
) -> usize {
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: called by C during a call of ours, with buffers of these lengths.
        let (io, identity, key) = unsafe {
            // The memory is as C left it; a slice may only stand for what was written before.
            key.write_bytes(0, room);
            // An identity may be empty, and then without an address.
            let identity =
                if length == 0 { &[] } else { std::slice::from_raw_parts(identity, length) };
            (io_of(io), identity, std::slice::from_raw_parts_mut(key, room))
        };
        io.host.key(identity, key).min(room)
    }))
    .unwrap_or(0)
}

extern "C" fn on_recall(
    io: *mut c_void,
    id: *const u8,
    length: usize,
    found: *mut Resumption,
) -> c_int {
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: called by C during a call of ours, with an initialised `found`.
        let (io, id, found) =
            unsafe { (io_of(io), std::slice::from_raw_parts(id, length), &mut *found) };
        match io.host.recall(id) {
            Some(resumption) => {
                found.clone_from(&resumption);
                0
            }
            None => 1,
        }
    }))
    .unwrap_or(1)
}

extern "C" fn on_remember(io: *mut c_void, resumption: *const Resumption) {
    // A panic here loses the chance to resume, and nothing else.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: called by C during a call of ours, with an initialised structure.
        let (io, resumption) = unsafe { (io_of(io), &*resumption) };
        io.host.remember(resumption);
    }));
}

/// One block into a SHA-256, for the library's hashes, key derivation and MACs.
///
/// # Safety
/// `state` and `block` must be valid for their lengths, and nobody else may use `state` meanwhile.
// SAFETY: no other function of the program has this name; C declares it with the same types.
#[unsafe(no_mangle)]
unsafe extern "C" fn dtls_sha256_compress(state: *mut [u32; 8], block: *const [u8; 64]) {
    // SAFETY: C passes the words of a hash that it works on, and 64 readable bytes. Arrays of
    // words and of bytes have the alignment that C gives to both.
    let (state, block) = unsafe { (&mut *state, &*block) };
    sha2::block_api::compress256(state, std::slice::from_ref(block));
}

/// What the sessions of one side share. It never changes.
pub(crate) struct Context(NonNull<RawContext>);

// SAFETY: nothing writes to the structure after `Context::new`; C reads it only.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// How a context is made.
pub(crate) struct Setup<'a> {
    /// Cipher suites, the preferred first.
    pub(crate) suites: &'a [u16],
    /// Bytes of our connection IDs.
    pub(crate) cid_length: usize,
    /// The first and the last interval of retransmissions in a handshake.
    pub(crate) retransmit_ms: (u32, u32),
    /// For a client: its identity and key.
    pub(crate) client: Option<(&'a [u8], &'a [u8])>,
}

impl Context {
    /// `None`: out of memory, or a value that the library refuses.
    pub(crate) fn new(setup: &Setup<'_>) -> Option<Arc<Self>> {
        let callbacks = Callbacks {
            send: on_send,
            receive: on_receive,
            key: on_key,
            recall: on_recall,
            remember: on_remember,
        };
        // SAFETY: pointers and lengths belong together; C copies what it keeps.
        let raw = unsafe {
            dtls_context_new(
                c_int::from(setup.client.is_some()),
                setup.suites.as_ptr(),
                setup.suites.len(),
                &raw const callbacks,
                setup.cid_length,
                setup.retransmit_ms.0,
                setup.retransmit_ms.1,
            )
        };
        let context = Self(NonNull::new(raw)?);
        if let Some((identity, key)) = setup.client {
            // SAFETY: the context is ours alone still; pointers and lengths belong together.
            let result = unsafe {
                dtls_context_set_key(
                    context.0.as_ptr(),
                    key.as_ptr(),
                    key.len(),
                    identity.as_ptr(),
                    identity.len(),
                )
            };
            if result != 0 {
                return None;
            }
        }
        Some(Arc::new(context))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `dtls_context_new`; no session is left, each holds an `Arc` of this.
        unsafe { dtls_context_free(self.0.as_ptr()) }
    }
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing more to do with this datagram.
    Wait,
    /// The handshake has ended well.
    Established,
    /// A record's bytes are in the buffer: so many.
    Received(usize),
    /// The peer closed the session.
    Closed,
    /// The session is over: the library's number.
    Failed(i32),
}

/// What a record is to a session that has not taken it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Made with its key.
    Authentic,
    /// Made with another key, or changed.
    Forged,
    /// Malformed, seen before, or of another epoch or connection ID.
    Unexpected,
}

/// One session of Mbed TLS.
pub(crate) struct Session {
    raw: NonNull<RawSession>,
    context: Arc<Context>,
}

// SAFETY: the structure has no tie to a thread, and `&mut self` keeps others away.
unsafe impl Send for Session {}

impl Session {
    /// A session before its handshake. `cid`: our connection ID, as long as the context says.
    pub(crate) fn new(context: &Arc<Context>, cid: Option<&[u8]>) -> Option<Self> {
        let cid = cid.map_or(std::ptr::null(), <[u8]>::as_ptr);
        // SAFETY: `cid` is null or has the length that the context was made with.
        let raw = unsafe { dtls_session_new(context.0.as_ptr(), cid) };
        Some(Self { raw: NonNull::new(raw)?, context: Arc::clone(context) })
    }

    /// An established session as it was saved.
    pub(crate) fn restore(context: &Arc<Context>, snapshot: &Snapshot) -> Option<Self> {
        // SAFETY: C checks the lengths inside of the snapshot.
        let raw = unsafe { dtls_session_restore(context.0.as_ptr(), snapshot) };
        Some(Self { raw: NonNull::new(raw)?, context: Arc::clone(context) })
    }

    /// Does what can be done; call it until it waits.
    pub(crate) fn step(&mut self, io: &mut Io<'_, '_>, now_ms: u64, out: &mut [u8]) -> Step {
        let mut length = 0;
        let io = std::ptr::from_mut(io).cast();
        // SAFETY: `io` and `out` outlive the call; see the rules above.
        let result = unsafe {
            let (out, room) = (out.as_mut_ptr(), out.len());
            dtls_session_step(self.raw.as_ptr(), io, now_ms, out, room, &raw mut length)
        };
        match result {
            0 => Step::Wait,
            1 => Step::Established,
            2 => Step::Received(length.min(out.len())),
            3 => Step::Closed,
            error => Step::Failed(error),
        }
    }

    /// Sends one record; the library's number if it refuses.
    pub(crate) fn write(
        &mut self,
        io: &mut Io<'_, '_>,
        now_ms: u64,
        bytes: &[u8],
    ) -> Result<(), i32> {
        let io = std::ptr::from_mut(io).cast();
        // SAFETY: as in `step`.
        let result = unsafe {
            dtls_session_write(self.raw.as_ptr(), io, now_ms, bytes.as_ptr(), bytes.len())
        };
        if result == 0 { Ok(()) } else { Err(result) }
    }

    /// Says close_notify.
    pub(crate) fn close(&mut self, io: &mut Io<'_, '_>, now_ms: u64) {
        let io = std::ptr::from_mut(io).cast();
        // SAFETY: as in `step`. A peer that misses the alert finds out by itself.
        unsafe { dtls_session_close(self.raw.as_ptr(), io, now_ms) };
    }

    /// When the flight has to be sent again, in the time that `step` was given.
    pub(crate) fn timer_ms(&self) -> Option<u64> {
        // SAFETY: reads one field, as all of the following.
        let at = unsafe { dtls_session_timer(self.raw.as_ptr()) };
        (at != u64::MAX).then_some(at)
    }

    /// Whether the handshake is over.
    pub(crate) fn is_established(&self) -> bool {
        // SAFETY: reads one field.
        unsafe { dtls_session_is_over(self.raw.as_ptr()) != 0 }
    }

    /// Whether the next record is a Finished: the ChangeCipherSpec before it has come.
    pub(crate) fn expects_finished(&self) -> bool {
        // SAFETY: reads one field.
        unsafe { dtls_session_expects_finished(self.raw.as_ptr()) != 0 }
    }

    /// Looks at the copy of a protected record, which is wiped.
    pub(crate) fn check(&mut self, record: &mut [u8]) -> Check {
        // SAFETY: pointer and length belong together; C decrypts there and keeps nothing.
        let result =
            unsafe { dtls_session_check(self.raw.as_ptr(), record.as_mut_ptr(), record.len()) };
        match result {
            0 => Check::Authentic,
            1 => Check::Forged,
            _ => Check::Unexpected,
        }
    }

    /// Whether our last flight is kept, because the peer may have missed it.
    pub(crate) fn holds_flight(&self) -> bool {
        // SAFETY: reads one field.
        unsafe { dtls_session_holds_flight(self.raw.as_ptr()) != 0 }
    }

    /// The replay window: its newest record, and which of the 64 up to it have come. It changes
    /// if and only if a record was authentic and new.
    pub(crate) fn window(&self) -> (u64, u64) {
        // SAFETY: reads two fields.
        unsafe {
            (dtls_session_window_top(self.raw.as_ptr()), dtls_session_window(self.raw.as_ptr()))
        }
    }

    /// The sequence number of the next record, without the epoch.
    pub(crate) fn out_sequence(&self) -> u64 {
        // SAFETY: reads one field.
        unsafe { dtls_session_out_counter(self.raw.as_ptr()) & crate::snapshot::SEQUENCE_MAX }
    }

    /// The session as it is now; it goes on.
    pub(crate) fn save(&self) -> Option<Snapshot> {
        let mut snapshot = Snapshot::empty();
        // SAFETY: writes to a structure of the same layout.
        let result = unsafe { dtls_session_save(self.raw.as_ptr(), &raw mut snapshot) };
        (result == 0).then_some(snapshot)
    }

    /// What a client keeps for the next handshake.
    pub(crate) fn resumption(&self) -> Option<Resumption> {
        let mut resumption = Resumption::empty();
        // SAFETY: writes to a structure of the same layout.
        let result = unsafe { dtls_session_resumption(self.raw.as_ptr(), &raw mut resumption) };
        (result == 0).then_some(resumption)
    }

    /// A client begins with a session of before.
    pub(crate) fn resume(&mut self, resumption: &Resumption) -> bool {
        // SAFETY: reads a structure of the same layout.
        unsafe { dtls_session_resume(self.raw.as_ptr(), resumption) == 0 }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: made by this module, freed once; the context is still alive.
        unsafe { dtls_session_free(self.raw.as_ptr()) }
        debug_assert!(Arc::strong_count(&self.context) > 0, "the context outlives its sessions");
    }
}

/// Fills a buffer with random bytes of the kernel. `false`: the kernel gave none.
#[must_use]
pub(crate) fn fill_random(bytes: &mut [u8]) -> bool {
    // SAFETY: pointer and length belong together.
    unsafe { dtls_random(bytes.as_mut_ptr(), bytes.len()) == 0 }
}

/// HMAC-SHA-256.
pub(crate) fn hmac(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    let mut mac = [0; 32];
    // SAFETY: lengths are those that C expects. It fails only for an unknown hash.
    unsafe { dtls_hmac_sha256(key.as_ptr(), bytes.as_ptr(), bytes.len(), mac.as_mut_ptr()) };
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha_256() {
        // RFC 4231 §4.2; zeros behind a short key do not change an HMAC.
        let mut key = [0; 32];
        key[..20].fill(0x0B);
        let mac = hmac(&key, b"Hi There");
        assert_eq!(mac[..8], [0xB0, 0x34, 0x4C, 0x61, 0xD8, 0xDB, 0x38, 0x53]);
        assert_eq!(mac[24..], [0x26, 0xE9, 0x37, 0x6C, 0x2E, 0x32, 0xCF, 0xF7]);
    }
}
