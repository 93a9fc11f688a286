//! What happened, in numbers.

macro_rules! counters {
    (
        datagrams { $($(#[$datagram_doc:meta])* $datagram:ident,)* }
        others { $($(#[$other_doc:meta])* $other:ident,)* }
    ) => {
        /// Plain counters since the engine began; the owner reads them at any time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counters {
            /// Datagrams handled. Each is counted once more in exactly one of the fields up to
            /// [`Counters::overflowed`]: see [`Counters::accounted`].
            pub received: u64,
            $($(#[$datagram_doc])* pub $datagram: u64,)*
            $($(#[$other_doc])* pub $other: u64,)*
        }

        impl Counters {
            /// The sum over the fates of a datagram: always equal to [`Counters::received`].
            pub fn accounted(&self) -> u64 {
                0 $(+ self.$datagram)*
            }

            /// Names and values, for a metrics page.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [
                    ("received", self.received),
                    $((stringify!($datagram), self.$datagram),)*
                    $((stringify!($other), self.$other),)*
                ]
                .into_iter()
            }
        }
    };
}

counters! {
    datagrams {
        /// No record of DTLS: shorter than a header, another version, an unknown type.
        malformed,
        /// A ClientHello that cannot be read.
        hello_malformed,
        /// A ClientHello in fragments.
        hello_fragmented,
        /// A ClientHello beyond the limit.
        hello_oversized,
        /// A ClientHello without a cookie: answered with one.
        hello_without_cookie,
        /// A ClientHello with a cookie that is old or not this peer's: answered with a new one.
        hello_wrong_cookie,
        /// A ClientHello with a valid cookie that began a handshake.
        hello_accepted,
        /// A ClientHello of a handshake under way, or of a session that exists.
        hello_repeated,
        /// A ClientHello with a valid cookie beyond the handshakes per second.
        hello_shed,
        /// For a handshake under way.
        handshake,
        /// With at least one authentic and new record of a session.
        records,
        /// For a session, but not authentic, or seen before.
        records_discarded,
        /// For a session or a connection ID that we do not have.
        unknown,
        /// For a sleeping session beyond the wakes per second.
        wakes_shed,
        /// Dropped because the owner does not poll.
        overflowed,
    }
    others {
        /// Handshakes that ended well.
        established,
        /// Of these, abbreviated ones.
        resumed,
        /// Of these, those with a connection ID.
        established_with_cid,
        /// Handshakes that failed: wrong key, unknown identity, no suite in common, an alert.
        handshakes_failed,
        /// Handshakes that took too long.
        handshakes_expired,
        /// Handshakes that made room for newer ones.
        handshakes_evicted,
        /// Identities without a key. The peer cannot tell it from a wrong key.
        identities_unknown,
        /// Handshakes that got no key because too many of their identity had failed, from a network
        /// where it has no session.
        held_back,
        /// Alerts sent for records of unknown sessions.
        unknown_alerted,
        /// Records sent.
        sent,
        /// Address changes by connection ID.
        moved,
        /// Sessions that fell asleep.
        slept,
        /// Sessions that woke up.
        woken,
        /// Sessions closed by their peer.
        closed_by_peer,
        /// Sessions that failed.
        closed_failed,
        /// Sessions replaced by a newer one of the same address or identity.
        closed_replaced,
        /// Sessions forgotten, because they idled too long or were too many.
        closed_forgotten,
        /// Sessions taken from an earlier start.
        imported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_leaves_out_what_is_no_datagram() {
        let counters = Counters { records: 2, established: 5, ..Counters::default() };
        assert_eq!(counters.accounted(), 2);
        assert!(counters.entries().any(|entry| entry == ("established", 5)));
    }
}
