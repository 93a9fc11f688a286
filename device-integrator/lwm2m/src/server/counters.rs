//! What happened, in numbers.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Plain counters since the server began; the owner reads them at any time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Names and values, for a metrics page.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams handled.
    received,
    /// Datagrams dropped because the owner does not poll.
    overflowed,
    /// Registrations answered with 2.01.
    registrations,
    /// Updates answered with 2.04.
    updates,
    /// De-registrations answered with 2.02.
    deregistrations,
    /// Requests refused for what they say: 4.00 and its kin.
    refused,
    /// Requests refused because they name another device: 4.03.
    refused_name,
    /// Requests of a registration that does not exist: 4.04.
    unknown_registrations,
    /// Requests answered with 5.03 because of a limit of ours.
    overloaded,
    /// Send operations answered with 2.04.
    sends,
    /// Notifications taken.
    notifications,
    /// Notifications older than one already taken.
    notifications_stale,
    /// Notifications and late answers that nobody waits for: reset.
    notifications_unknown,
    /// Notifications whose payload could not be read.
    notifications_unreadable,
    /// Operations asked for.
    commands,
    /// Operations that were answered.
    commands_answered,
    /// Operations that were not.
    commands_failed,
    /// Objects read for passive reporting.
    passive_reads,
    /// Objects that could not be read for it.
    passive_failures,
    /// Bootstraps begun.
    bootstraps,
    /// Bootstraps that came to a good end.
    bootstraps_done,
    /// Bootstraps that did not.
    bootstraps_failed,
    /// Devices heard from another place than before.
    moved,
}
