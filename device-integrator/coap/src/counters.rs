//! What happened, in numbers.

use crate::wire::Malformed;

macro_rules! counters {
    (
        $(#[$doc:meta])* $name:ident
        datagrams { $($(#[$datagram_doc:meta])* $datagram:ident,)* }
        others { $($(#[$other_doc:meta])* $other:ident,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name {
            /// Datagrams handled. Each is counted once more in exactly one of the fields up to
            /// [`Counters::ignored`]: see [`Counters::accounted`].
            pub received: u64,
            $($(#[$datagram_doc])* pub $datagram: u64,)*
            $($(#[$other_doc])* pub $other: u64,)*
        }

        impl $name {
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
    /// Plain counters since the endpoint began; the owner reads them at any time.
    Counters
    datagrams {
        /// Malformed: shorter than a header.
        malformed_short,
        /// Malformed: another version.
        malformed_version,
        /// Malformed: token length reserved, or token cut off.
        malformed_token,
        /// Malformed: an empty message with content.
        malformed_empty,
        /// Malformed: a code of a reserved class.
        malformed_code,
        /// Malformed: an option.
        malformed_option,
        /// Malformed: a payload marker without a payload.
        malformed_payload,
        /// Requests handed to the owner, also those completed by their last block.
        requests,
        /// Duplicates of an answered exchange: answered again.
        duplicates_answered,
        /// Duplicates of an exchange in progress: left to its answer.
        duplicates_pending,
        /// Requests with an unknown critical option, a repeated one, or one of bad length.
        rejected_option,
        /// Requests to forward: 5.05.
        rejected_proxy,
        /// Requests with an unknown method: 4.05.
        rejected_method,
        /// Requests of a block-wise transfer that were refused: 4.00, 4.08, 4.13.
        rejected_block,
        /// Blocks of uploads accepted with 2.31.
        upload_blocks,
        /// Blocks of kept bodies served.
        download_blocks,
        /// Responses and notifications handed to the owner or to a block-wise collection.
        responses,
        /// Notifications older than one already seen (RFC 7641 §3.4).
        responses_stale,
        /// Responses to nothing we asked.
        responses_unknown,
        /// Responses with an unknown critical option.
        responses_rejected,
        /// Empty acknowledgements of our messages.
        acknowledgements,
        /// Acknowledgements of nothing we wait for.
        acknowledgements_unknown,
        /// Resets of our messages.
        resets,
        /// Resets of nothing we remember.
        resets_unknown,
        /// Empty confirmable messages: answered with a reset.
        pings,
        /// Datagrams dropped because the owner does not poll.
        overflowed,
        /// Messages of a combination without meaning (RFC 7252 table 1).
        ignored,
    }
    others {
        /// Exchanges forgotten before their lifetime because of a limit.
        exchanges_evicted,
        /// Uploads given up: replaced, idle, out of order or over the budget.
        uploads_aborted,
        /// Kept bodies given up because of a limit.
        downloads_evicted,
        /// Our confirmable messages sent again.
        retransmissions,
        /// Our confirmable messages that nobody acknowledged.
        timeouts,
        /// Confirmable messages sent as non-confirmable ones, because too many wait.
        confirmables_demoted,
        /// Responses left unsent as the client wished (RFC 7967).
        responses_suppressed,
        /// Blocks served out of bodies that stay with the owner.
        download_parts,
        /// Observations refused because of a limit.
        observations_refused,
    }
}

impl Counters {
    pub(crate) fn count_malformed(&mut self, reason: Malformed) {
        let counter = match reason {
            Malformed::Short(_) => &mut self.malformed_short,
            Malformed::Version(_) => &mut self.malformed_version,
            Malformed::TokenLength(_) | Malformed::TokenCut => &mut self.malformed_token,
            Malformed::EmptyWithContent(_) => &mut self.malformed_empty,
            Malformed::ReservedClass(_) => &mut self.malformed_code,
            Malformed::OptionNibble | Malformed::OptionCut | Malformed::OptionNumber(_) => {
                &mut self.malformed_option
            }
            Malformed::MarkerWithoutPayload => &mut self.malformed_payload,
        };
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_leaves_out_what_is_no_datagram() {
        let mut counters = Counters { requests: 2, retransmissions: 5, ..Counters::default() };
        counters.count_malformed(Malformed::TokenCut);
        assert_eq!(counters.accounted(), 3);
        assert!(counters.entries().any(|entry| entry == ("malformed_token", 1)));
    }
}
