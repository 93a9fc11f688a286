//! The queries: history and its paging, translation, the administration log.

use crate::world::{LONGER, TEMPERATURE, World, iccid};
use inspector::{
    HistoryError, HistoryQuery, LogPayloadError, LogQuery, LogsError, PageToken, PayloadText,
    StatsError, TRANSLATION_FAILED, TemplateChoice, TokenError, Translation,
};
use vocabulary::{EventId, NoticeCategory, NoticeKind, Protocol};

fn of(device: u64, page_size: usize) -> HistoryQuery {
    HistoryQuery { device: Some(iccid(device)), page_size, ..HistoryQuery::default() }
}

#[test]
fn pages_are_a_snapshot() {
    let world = World::new();
    let mut sent: Vec<EventId> =
        (0..23).map(|number: u8| world.send(1, Protocol::Udp, &[number])).collect();
    sent.reverse();
    let first = world.inspector.history(&of(1, 10)).unwrap();
    assert_eq!(first.items.iter().map(|item| item.id).collect::<Vec<_>>(), sent[..10]);
    let token = first.first.unwrap().to_string();
    for number in 0..5 {
        world.send(1, Protocol::Udp, &[number]);
    }
    let again: PageToken = token.parse().unwrap();
    let again = world.inspector.history(&HistoryQuery { token: Some(again), ..of(1, 10) }).unwrap();
    assert_eq!(again, first);
    let rest = world.history_ids(HistoryQuery { token: first.next, ..of(1, 7) });
    assert_eq!(rest, sent[10..]);
    assert_eq!(world.history_ids(of(1, 25)).len(), 28);
}

#[test]
fn the_last_page_has_no_tokens() {
    let world = World::new();
    assert!(world.inspector.history(&of(1, 10)).unwrap().items.is_empty());
    for _ in 0..10 {
        world.send(1, Protocol::Udp, b"x");
    }
    let page = world.inspector.history(&of(1, 10)).unwrap();
    assert_eq!((page.items.len(), page.next, page.first), (10, None, None));
}

#[test]
fn history_filters_by_device_protocol_and_time() {
    let world = World::new();
    let udp = world.send(1, Protocol::Udp, b"a");
    let coap = world.send(1, Protocol::Coap, b"b");
    let other = world.send(2, Protocol::Udp, b"c");
    assert_eq!(world.history_ids(HistoryQuery::default()), [other, coap, udp]);
    let by = |protocol| HistoryQuery { protocol: Some(protocol), ..HistoryQuery::default() };
    assert_eq!(world.history_ids(by(Protocol::Udp)), [other, udp]);
    let page = world.inspector.history(&by(Protocol::Coap)).unwrap();
    assert_eq!(page.items[0].topic.as_deref(), Some("room/1"));
    assert_eq!(page.items[0].payload, PayloadText::Base64("Yg==".to_owned()));
    let time = page.items[0].time;
    let until = HistoryQuery { until: Some(time), ..of(1, 10) };
    assert!(!world.history_ids(until).contains(&coap));
    let from = HistoryQuery { from: Some(time), ..of(1, 10) };
    assert!(world.history_ids(from).contains(&coap));
}

#[test]
fn a_token_of_another_query_is_refused() {
    let world = World::new();
    for _ in 0..3 {
        world.send(1, Protocol::Udp, b"x");
    }
    let token = world.inspector.history(&of(1, 1)).unwrap().next;
    let refused = |query| match world.inspector.history(&query).unwrap_err() {
        HistoryError::Token(error) => error,
        other => panic!("{other}"),
    };
    assert_eq!(refused(HistoryQuery { token, ..of(2, 1) }), TokenError::OtherQuery("device"));
    let query = HistoryQuery { token, protocol: Some(Protocol::Udp), ..of(1, 1) };
    assert_eq!(refused(query), TokenError::OtherQuery("protocol"));
    for page_size in [0, 26] {
        let error = world.inspector.history(&of(1, page_size)).unwrap_err();
        assert!(matches!(error, HistoryError::PageSize(_)), "{error}");
    }
}

#[test]
fn a_message_that_does_not_fit_is_found_and_replayed_with_the_mended_template() {
    let world = World::new();
    let wrong = world.create_template("t", LONGER, &[Protocol::Udp]);
    let id = world.send(1, Protocol::Udp, &[0, 21]);
    world.reader().step().unwrap();
    assert!(world.history_ids(of(1, 10)).is_empty());
    let notice = world.notices().pop().unwrap();
    assert_eq!(notice.message, TRANSLATION_FAILED);
    assert_eq!(notice.payload_reference, Some(format!("1/{}", notice.id)));
    assert_eq!(world.inspector.log_payload(notice.id).unwrap(), [0, 21]);

    world.mend_template(&wrong, TEMPERATURE);
    let view = |choice| world.inspector.message(id, choice).unwrap().unwrap();
    let of_its_day = view(TemplateChoice::OfItsDay);
    assert_eq!((of_its_day.seq, &of_its_day.payload[..]), (1, &[0, 21][..]));
    let Translation::Failed { error, .. } = of_its_day.translation else { panic!("translated") };
    assert_eq!(error, notice.description);
    let Translation::Json { json, .. } = view(TemplateChoice::Newest).translation else {
        panic!("not translated")
    };
    assert_eq!(json, r#"{"t":21}"#);
    let page = world.inspector.messages(&of(1, 10), TemplateChoice::Newest).unwrap();
    assert_eq!(page.items, [view(TemplateChoice::Newest)]);
    assert!(world.history_ids(of(1, 10)).is_empty());
}

#[test]
fn the_administration_log_filters_and_counts_pages() {
    let world = World::new();
    world.create_template("t", TEMPERATURE, &[Protocol::Udp]);
    let mut reader = world.reader();
    for device in 0..30 {
        world.send(device, Protocol::Udp, &[0]);
    }
    reader.step().unwrap();
    let ask = |query: LogQuery| world.inspector.administration_logs(&query).unwrap();
    let all = ask(LogQuery::default());
    assert_eq!((all.items.len(), all.page, all.page_amount), (10, 1, 6));
    assert_eq!(all.items[0].kind, NoticeKind::Device);
    let info = LogQuery { category: Some(NoticeCategory::Info), page: 3, ..LogQuery::default() };
    let info = ask(info);
    assert_eq!((info.items.len(), info.page, info.page_amount), (10, 3, 3));
    assert_eq!(info.items[9].iccid, Some(iccid(0)));
    let one = ask(LogQuery { iccid: Some(iccid(7)), ..LogQuery::default() });
    assert_eq!(one.items.len(), 2);
    let none = ask(LogQuery { kind: Some(NoticeKind::Location), ..LogQuery::default() });
    assert_eq!((none.items.len(), none.page_amount), (0, 1));
    assert!(
        ask(LogQuery { geofence: Some("g".to_owned()), ..LogQuery::default() }).items.is_empty()
    );
    let beyond = LogQuery { page: 51, ..LogQuery::default() };
    let error = world.inspector.administration_logs(&beyond).unwrap_err();
    assert!(matches!(error, LogsError::Page { found: 51 }));
}

#[test]
fn statistics_count_entries_and_devices() {
    let world = World::new();
    world.create_template("t", TEMPERATURE, &[Protocol::Udp]);
    for _ in 0..3 {
        world.send(1, Protocol::Udp, &[0]);
        world.send(2, Protocol::Udp, &[0, 1]);
    }
    world.reader().step().unwrap();
    let stats = |category| world.inspector.administration_log_stats("Asia/Kolkata", category);
    let sum = |stats: inspector::LogStats| {
        let amounts = stats.administration_logs.iter().map(|day| day.amount);
        (stats.total_unique_devices, amounts.sum::<u64>())
    };
    assert_eq!(sum(stats(None).unwrap()), (2, 5));
    assert_eq!(sum(stats(Some(NoticeCategory::Error)).unwrap()), (1, 3));
    assert_eq!(sum(stats(Some(NoticeCategory::Info)).unwrap()), (2, 2));
    let error = world.inspector.administration_log_stats("Nowhere", None).unwrap_err();
    assert!(matches!(error, StatsError::UnknownTimeZone { .. }));
}

#[test]
fn payloads_are_found_only_behind_notices_of_messages() {
    let world = World::new();
    let message = world.send(1, Protocol::Udp, b"x");
    world.reader().step().unwrap();
    let notice = world.notices()[0].id;
    let payload = |id| world.inspector.log_payload(id).unwrap_err();
    assert!(matches!(payload(message), LogPayloadError::UnknownNotice(_)));
    assert!(matches!(payload(notice), LogPayloadError::WithoutPayload(_)));
    let other = EventId::from_bytes([0; 16]);
    assert!(matches!(payload(other), LogPayloadError::UnknownNotice(_)));
    assert!(world.inspector.message(notice, TemplateChoice::OfItsDay).unwrap().is_none());
    assert!(world.inspector.message(other, TemplateChoice::OfItsDay).unwrap().is_none());
}
