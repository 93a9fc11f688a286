//! Whose an address is, of all sessions that named it.
//!
//! A session holds its address without a break from the first to the last report that names it. So
//! of two sessions that were not heard at the same time the one that was heard later holds it, and
//! of one that has ended everybody is free who was heard after it began.

use crate::session::Session;

/// How far the clocks of two servers may differ. Reports of two servers about one address that are
/// closer have no order.
pub(crate) const CLOCK_SKEW_S: u64 = 30;
const CLOCK_SKEW: i64 = CLOCK_SKEW_S.cast_signed() * 1_000_000;

/// Who holds an address.
pub(crate) enum Claim<'a> {
    /// Nobody ever named it.
    Nobody,
    /// This session, until it grows stale.
    Held(&'a Session),
    /// This session held it last, and has ended.
    Ended(&'a Session),
    /// The order of two SIMs is not certain.
    Contested,
}

/// Who holds an address that these sessions named.
pub(crate) fn holder<'a, I: Iterator<Item = &'a Session>>(
    claims: impl Fn() -> I,
    is_over: impl Fn(&Session) -> bool,
) -> Claim<'a> {
    let order = |session: &&Session| (session.claimed, session.held_since, session.place);
    let ended = || {
        let over = claims().filter(|session| is_over(session));
        let newest = over.max_by_key(|session| (session.held_since, session.place));
        newest.map_or(Claim::Nobody, Claim::Ended)
    };
    let Some(newest) = claims().filter(|session| !is_over(session)).max_by_key(order) else {
        return ended();
    };
    let mut holds = true;
    for other in claims().filter(|other| other.place != newest.place) {
        if !is_over(other) {
            holds &= other.holder().is(newest.holder()) || is_past(other, newest);
        } else if other.held_since > newest.claimed.saturating_add(skew(other, newest)) {
            return ended();
        } else {
            holds &= outlives(newest, other);
        }
    }
    if holds { Claim::Held(newest) } else { Claim::Contested }
}

/// How far apart times of two sessions must be to have an order.
fn skew(one: &Session, two: &Session) -> i64 {
    if one.origin == two.origin { 0 } else { CLOCK_SKEW }
}

/// Whether `newest` held the address after `other`, for sure. Where both were heard at the same
/// time for longer than clocks differ, something is wrong with the network, and nothing is sure.
pub(crate) fn is_past(other: &Session, newest: &Session) -> bool {
    let skew = skew(other, newest);
    newest.claimed > other.claimed.saturating_add(skew)
        && newest.held_since.saturating_add(skew) >= other.claimed
}

/// Whether `newest` was heard after `ended` began, for sure: it is not one of those that `ended`
/// came after. Within one second of one server the order of arrival decides.
pub(crate) fn outlives(newest: &Session, ended: &Session) -> bool {
    let since = ended.held_since.saturating_add(skew(ended, newest));
    newest.claimed > since
        || newest.claimed == since && ended.origin == newest.origin && newest.place > ended.place
}
