//! What a customer and a gateway can rely on.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vocabulary::{Protocol, Timestamp};

use super::{World, coap, device, lwm2m, not_sent, request, success, udp, unreachable};
use crate::*;

#[test]
fn a_request_to_be_sent_now_is_handed_over_when_it_is_durable() {
    let mut world = World::new();
    let id = world.submit(request(1, udp("hello"), Mode::SendNow)).unwrap();
    let handed = world.handed();
    assert_eq!((handed.len(), handed[0].request, handed[0].attempt), (1, id, 1));
    assert_eq!(*handed[0].action, udp("hello"));
    assert_eq!(world.status(id), Status::InProgress);
    world.wait(Duration::from_secs(1));
    let outcome = Outcome::Succeeded { code: None, payload: vec![], content_format: None };
    world.report(outcome.clone());
    assert!(!world.controller.report(handed[0].serial, world.now, outcome), "reported twice");
    let found = world.find(id);
    assert_eq!((found.status, found.updated), (Status::Succeeded, world.now));
    assert_eq!((found.send_attempts, found.send_attempts_left), (1, 0));
    assert_eq!(world.controller.active(), 0);
}

#[test]
fn a_trigger_sends_what_waits_in_order_and_one_at_a_time() {
    let mut world = World::new();
    let ids = [
        world.schedule(1, lwm2m("read", None)),
        world.schedule(1, coap("/example?a=1")),
        world.schedule(1, udp("x")),
    ];
    world.schedule(2, udp("another device"));
    assert_eq!(world.handed_ids(), []);
    world.trigger(1);
    world.trigger(1);
    assert_eq!(world.handed_ids(), ids[..1]);
    let late = world.schedule(1, udp("after the trigger"));
    for count in 2..=3 {
        world.report(success());
        assert_eq!(world.handed_ids(), ids[..count]);
    }
    world.report(success());
    assert_eq!(world.handed_ids(), ids, "what came later waits for the next trigger");
    world.trigger(1);
    assert_eq!(world.handed_ids().last(), Some(&late));
    world.trigger(3);
    assert_eq!(world.handed_ids().len(), 4);
}

#[test]
fn attempts_are_used_by_silence_only() {
    let mut world = World::new();
    let mut new = request(1, coap("/a"), Mode::SendWhenActive);
    new.send_attempts = 2;
    let id = world.submit(new).unwrap();
    world.trigger(1);
    world.report(not_sent());
    let found = world.find(id);
    assert_eq!((found.status, found.send_attempts_left), (Status::Scheduled, 2));
    world.trigger(1);
    world.report(unreachable());
    let found = world.find(id);
    assert_eq!((found.status, found.send_attempts_left), (Status::Scheduled, 1));
    assert_eq!(world.handed().len(), 2);
    world.trigger(1);
    assert_eq!(world.handed().last().unwrap().attempt, 2);
    world.report(unreachable());
    let found = world.find(id);
    assert_eq!((found.status, found.send_attempts_left), (Status::Failed, 0));
    assert_eq!(found.result.unwrap().error.as_deref(), Some("no answer"));
    world.trigger(1);
    assert_eq!(world.handed().len(), 3);
}

#[test]
fn what_is_to_be_sent_now_is_repeated_at_once_and_fails_where_it_cannot_be_sent() {
    let mut world = World::new();
    let mut new = request(1, coap("/a"), Mode::SendNow);
    new.send_attempts = 3;
    let id = world.submit(new).unwrap();
    world.report(unreachable());
    let attempts: Vec<u8> = world.handed().iter().map(|dispatch| dispatch.attempt).collect();
    assert_eq!(attempts, [1, 2]);
    world.report(not_sent());
    assert_eq!((world.status(id), world.handed().len()), (Status::Failed, 2));
}

#[test]
fn what_cannot_be_sent_holds_nothing_up() {
    let mut world = World::new();
    let first = world.schedule(1, lwm2m("read", None));
    let second = world.schedule(1, udp("x"));
    world.trigger(1);
    world.report(not_sent());
    assert_eq!(world.handed_ids(), [first, second]);
    world.report(success());
    assert_eq!(world.handed().len(), 2, "the first waits for the next trigger");
    assert_eq!(world.status(first), Status::Scheduled);
}

#[test]
fn a_device_has_ten_requests_of_a_mode_that_wait() {
    let mut world = World::new();
    let ids: Vec<_> = (0..10).map(|_| world.schedule(1, udp("x"))).collect();
    let eleventh = request(1, udp("x"), Mode::SendWhenActive);
    assert_eq!(world.submit(eleventh.clone()), Err(Refused::TooManyScheduled));
    world.schedule(2, udp("x"));
    world.controller.cancel(ids[3], world.now).unwrap();
    assert!(world.submit(eleventh).is_ok());
    let now = || request(1, udp("now"), Mode::SendNow);
    let urgent: Vec<_> = (0..11).map(|_| world.submit(now()).unwrap()).collect();
    assert_eq!(world.submit(now()), Err(Refused::TooManyScheduled));
    assert_eq!(world.handed_ids(), urgent[..1], "the others wait for the first");
    assert_eq!(world.status(urgent[1]), Status::Scheduled);
}

#[test]
fn all_devices_together_have_a_limit() {
    let mut world = World::with(Limits { active_max: 2, ..Limits::default() });
    let bulk = (0..3).map(|number| request(number, udp("x"), Mode::SendWhenActive)).collect();
    let answers = world.controller.submit(world.now, bulk, &|_| true).unwrap();
    let refused: Vec<bool> = answers.iter().map(Result::is_err).collect();
    assert_eq!(refused, [false, false, true]);
    assert_eq!(answers[2], Err(Refused::Full { limit: 2 }));
    world.controller.cancel_all(device(0), world.now).unwrap();
    world.schedule(5, udp("x"));
}

#[test]
fn an_operation_to_be_done_now_needs_a_registration() {
    let mut world = World::new();
    let submit = |world: &World, new| world.controller.submit(world.now, vec![new], &|_| false);
    let now = request(1, lwm2m("read", None), Mode::SendNow);
    let refused = submit(&world, now).unwrap().remove(0);
    assert_eq!(refused, Err(Refused::NotRegistered(device(1))));
    let later = request(1, lwm2m("read", None), Mode::SendWhenActive);
    assert!(submit(&world, later).unwrap()[0].is_ok());
    let many = vec![request(1, udp("x"), Mode::SendNow); 101];
    let error = world.controller.submit(world.now, many, &|_| true).unwrap_err();
    assert_eq!(error.to_string(), "101 devices, allowed: 1 to 100");
    world.wait(Duration::ZERO);
}

#[test]
fn what_is_cancelled_is_never_sent_and_what_is_sent_is_not_cancelled() {
    let mut world = World::new();
    let [sent, first, second] = [0; 3].map(|_| world.schedule(1, udp("x")));
    world.trigger(1);
    world.controller.cancel(first, world.now).unwrap();
    let again = world.controller.cancel(first, world.now).unwrap_err();
    assert!(again.to_string().ends_with("is CANCELLED, allowed: SCHEDULED"), "{again}");
    let error = world.controller.cancel(sent, world.now).unwrap_err();
    assert!(error.to_string().ends_with("is IN_PROGRESS, allowed: SCHEDULED"), "{error}");
    assert_eq!(world.controller.cancel_all(device(1), world.now).unwrap(), [second]);
    world.report(success());
    world.trigger(1);
    assert_eq!(world.handed_ids(), [sent]);
    let statuses = [sent, first, second].map(|id| world.status(id));
    assert_eq!(statuses, [Status::Succeeded, Status::Cancelled, Status::Cancelled]);
    let unknown = RequestId::new(world.now).unwrap();
    let error = world.controller.cancel(unknown, world.now).unwrap_err();
    assert!(matches!(error, CancelError::Unknown(_)));
}

#[test]
fn a_request_fails_after_a_day_and_is_gone_after_a_week() {
    let mut world = World::new();
    let id = world.schedule(1, udp("x"));
    let flying = world.submit(request(2, coap("/"), Mode::SendNow)).unwrap();
    world.wait(EXPIRES_AFTER - Duration::from_secs(1));
    assert!(!world.controller.tick(world.now).unwrap());
    assert_eq!(world.status(id), Status::Scheduled);
    world.wait(Duration::from_secs(2));
    world.controller.tick(world.now).unwrap();
    let found = world.find(id);
    assert_eq!(found.status, Status::Failed);
    let error = found.result.unwrap().error.unwrap();
    assert_eq!(&*error, "the device showed no activity within 24 hours");
    world.trigger(1);
    assert_eq!(world.handed_ids(), [flying], "what is in flight is its sender's");
    world.wait(KEPT_FOR);
    world.controller.tick(world.now).unwrap();
    assert!([id, flying].iter().all(|id| world.controller.find(*id).unwrap().is_none()));
    assert_eq!(world.controller.active(), 0);
    assert!(!world.controller.report(world.handed()[0].serial, world.now, success()));
}

#[test]
fn requests_outlive_the_process_with_everything_that_was_given() {
    let mut world = World::new();
    let mut new = request(1, coap("/example?param1=x"), Mode::SendWhenActive);
    new.send_attempts = 5;
    new.imsi = "901405100002864".parse().ok();
    new.ip = "10.1.2.3".parse().ok();
    let waiting = world.submit(new).unwrap();
    let actions = [
        lwm2m("write", Some("21.5")),
        lwm2m("execute", None),
        lwm2m("read-composite", None),
        udp("grün"),
    ];
    let others: Vec<_> = actions.into_iter().map(|action| world.schedule(1, action)).collect();
    world.trigger(1);
    world.report(unreachable());
    for _ in &others {
        world.report(success());
    }
    let sent = world.submit(request(2, coap("/now"), Mode::SendNow)).unwrap();
    let before: Vec<Request> = others.iter().chain([&waiting]).map(|id| world.find(*id)).collect();
    assert_eq!(before[0].result.as_ref().unwrap().text().0, "on");
    for is_crash in [false, true] {
        world.reopen(is_crash);
        let after: Vec<Request> =
            others.iter().chain([&waiting]).map(|id| world.find(*id)).collect();
        // When an attempt ended is known, too.
        assert_eq!(before, after);
    }
    assert_eq!(world.handed_ids(), []);
    assert_eq!(world.status(sent), Status::Scheduled);
    world.controller.resume(world.now).unwrap();
    assert_eq!(world.handed_ids(), [sent], "at least once");
    world.trigger(1);
    let again = world.handed().pop().unwrap();
    assert_eq!((again.request, again.attempt), (waiting, 2));
}

/// The answer came before the request was known to wait: it could not be cancelled for a moment.
#[test]
fn a_request_can_be_cancelled_as_soon_as_it_is_answered() {
    let world = World::new();
    for _ in 0..200 {
        let new = vec![request(1, udp("x"), Mode::SendWhenActive)];
        let id = world.controller.submit(world.now, new, &|_| true).unwrap().remove(0).unwrap();
        world.controller.cancel(id, world.now).unwrap();
    }
}

#[test]
fn what_had_expired_is_not_sent_after_a_restart() {
    let mut world = World::new();
    let id = world.submit(request(1, udp("x"), Mode::SendNow)).unwrap();
    world.reopen(true);
    world.wait(EXPIRES_AFTER);
    world.controller.resume(world.now).unwrap();
    assert_eq!((world.handed().len(), world.status(id)), (0, Status::Failed));
}

#[test]
fn the_first_request_may_ride_on_an_answer() {
    let mut world = World::new();
    let ride = |world: &World, number| world.controller.take_piggyback(device(number), world.now);
    assert!(ride(&world, 1).is_none());
    let first = world.schedule(1, coap("/a"));
    let second = world.schedule(1, lwm2m("read", None));
    let third = world.schedule(1, udp("x"));
    let taken = ride(&world, 1).unwrap();
    assert_eq!((taken.request, world.status(first)), (first, Status::InProgress));
    assert!(ride(&world, 1).is_none(), "one is in flight");
    assert!(world.controller.report(taken.serial, world.now, success()));
    assert!(ride(&world, 1).is_none(), "nothing overtakes the operation before it");
    world.trigger(1);
    assert_eq!(world.handed_ids(), [second]);
    world.report(success());
    assert_eq!(world.handed_ids(), [second, third]);
    let large = world.schedule(2, udp(&"x".repeat(COAP_PAYLOAD_BYTES_MAX + 1)));
    assert!(ride(&world, 2).is_none());
    assert_eq!(world.status(large), Status::Scheduled);
}

#[test]
fn pages_hold_what_is_active_and_what_has_ended() {
    let mut world = World::new();
    let query = Query {
        shelf: Shelf::All,
        device: None,
        protocol: None,
        status: None,
        sort: SortField::Created,
        descending: true,
        skip: 0,
        take: 10,
    };
    let ids = [udp("0"), coap("/1"), udp("2"), lwm2m("read", None), udp("4")]
        .map(|action| world.schedule(1, action));
    let other = world.schedule(2, udp("5"));
    world.controller.cancel(ids[2], world.now).unwrap();
    world.trigger(1);
    world.report(success());
    world.wait(Duration::from_secs(1));
    let list = |query: Query| {
        let listed = world.controller.list(&query).unwrap();
        let ids: Vec<_> = listed.requests.iter().map(|request| request.id).collect();
        (ids, listed.total)
    };
    let [zero, one, two, three, four] = ids;
    assert_eq!(list(query), (vec![other, four, three, two, one, zero], 6));
    assert_eq!(list(Query { descending: false, skip: 2, take: 2, ..query }), (vec![two, three], 6));
    let active = Query { shelf: Shelf::Active, ..query };
    assert_eq!(list(active), (vec![other, four, three, one], 4));
    let flying = Query { status: Some(Status::InProgress), ..active };
    assert_eq!(list(flying), (vec![one], 1));
    assert_eq!(list(Query { protocol: Some(Protocol::Lwm2m), ..query }), (vec![three], 1));
    let archived = Query { shelf: Shelf::Archived, ..query };
    assert_eq!(list(archived), (vec![two, zero], 2));
    assert_eq!(list(Query { sort: SortField::Updated, take: 1, ..archived }).1, 2);
    assert_eq!(list(Query { device: Some(device(2)), ..query }), (vec![other], 1));
    assert_eq!(list(Query { device: Some(device(2)), ..archived }), (vec![], 0));
    assert_eq!(list(Query { skip: 50, ..query }), (vec![], 6));
}

/// A disk that refuses: what was taken is not lost, what is new is refused.
#[test]
fn a_full_disk_refuses_what_is_new_and_loses_no_result() {
    let mut world = World::new();
    let [first, second] = [1, 2].map(|number| world.schedule(number, coap("/a")));
    let waiting = world.schedule(3, udp("x"));
    // A limit below what there is means: no page more.
    world.controller.limit_pages(1);
    let large = || {
        let text = "x".repeat(LWM2M_DATA_BYTES_MAX);
        request(4, lwm2m("write", Some(&text)), Mode::SendWhenActive)
    };
    let submit =
        |world: &World| world.controller.submit(world.now, vec![large()], &|_| true).map(drop);
    let error = submit(&world).unwrap_err();
    assert!(matches!(&error, SubmitError::Store(error) if error.is_passing()), "{error}");
    for number in [1, 2] {
        world.trigger(number);
        let payload = vec![b'x'; RESULT_BYTES_MAX];
        let outcome = Outcome::Succeeded { code: Some(205), payload, content_format: None };
        let serial = world.handed().last().unwrap().serial;
        assert!(world.controller.report(serial, world.now, outcome));
    }
    assert!(matches!(world.controller.flush(), Err(StoreError::NoSpace)));
    assert!(submit(&world).is_err());
    let statuses = [first, second, waiting].map(|id| world.status(id));
    assert_eq!(statuses, [Status::InProgress, Status::InProgress, Status::Scheduled]);
    // Nobody can be told that it is cancelled, so it is not.
    let error = world.controller.cancel(waiting, world.now).unwrap_err();
    assert!(matches!(error, CancelError::Store(StoreError::NoSpace)));
    assert_eq!(world.status(waiting), Status::Scheduled);
    world.controller.limit_pages(1 << 20);
    let begun = Instant::now();
    while world.controller.flush().is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    for id in [first, second] {
        let found = world.find(id);
        assert_eq!(found.status, Status::Succeeded);
        assert_eq!(found.result.unwrap().payload.len(), RESULT_BYTES_MAX);
    }
    submit(&world).unwrap();
    assert_eq!(world.controller.active(), 2);
    world.reopen(false);
    assert_eq!(
        (world.status(first), world.status(waiting)),
        (Status::Succeeded, Status::Scheduled)
    );
}

#[test]
fn a_file_that_is_long_enough_takes_results_but_nothing_new() {
    let world = World::with(Limits { file_bytes_max: 1, ..Limits::default() });
    let new = vec![request(1, udp("x"), Mode::SendNow)];
    let error = world.controller.submit(world.now, new, &|_| true).unwrap_err();
    assert!(matches!(error, SubmitError::Store(StoreError::NoSpace)));
    assert_eq!((world.controller.active(), world.handed().len()), (0, 0));
}

#[test]
fn after_the_end_nothing_is_taken() {
    let world = World::new();
    let clone = world.controller.clone();
    world.controller.close();
    let new = vec![request(1, udp("x"), Mode::SendNow)];
    let error = clone.submit(world.now, new, &|_| true).unwrap_err();
    assert!(matches!(error, SubmitError::Store(StoreError::Closed)));
    assert_eq!(clone.active(), 0);
}

/// A sender that answers at once, on the thread that hands over.
#[test]
fn a_sender_may_report_while_it_is_handed_an_action() {
    let folder = tempfile::tempdir().unwrap();
    let slot: Arc<Mutex<Option<Controller>>> = Arc::default();
    let within = Arc::clone(&slot);
    let dispatcher: Dispatcher = Arc::new(move |dispatch: Dispatch| {
        let controller = within.lock().unwrap().clone().unwrap();
        controller.report(dispatch.serial, Timestamp::EPOCH, success());
    });
    let path = folder.path().join("actions.db");
    let controller = Controller::open(&path, Limits::default(), dispatcher).unwrap();
    *slot.lock().unwrap() = Some(controller.clone());
    let now = Timestamp::from_millis(1_800_000_000_000);
    for _ in 0..10 {
        let new = vec![request(1, udp("x"), Mode::SendWhenActive)];
        controller.submit(now, new, &|_| true).unwrap().remove(0).unwrap();
    }
    controller.flush().unwrap();
    controller.trigger(device(1), now);
    controller.flush().unwrap();
    assert_eq!(controller.active(), 0);
    controller.close();
    slot.lock().unwrap().take();
}

/// Devices that show life on several threads while requests come in: each is sent once.
#[test]
fn threads_send_each_request_once() {
    let mut world = World::new();
    let controller = world.controller.clone();
    let now = world.now;
    let mut ids: Vec<RequestId> = std::thread::scope(|scope| {
        let submitters: Vec<_> = (0..4_u64)
            .map(|part| {
                let controller = &controller;
                scope.spawn(move || {
                    let submit = |number| {
                        let mode =
                            if number % 3 == 0 { Mode::SendNow } else { Mode::SendWhenActive };
                        let new = vec![request(part * 40 + number % 40, udp("x"), mode)];
                        let mut answers = controller.submit(now, new, &|_| true).unwrap();
                        answers.remove(0).unwrap()
                    };
                    (0..200_u64).map(submit).collect::<Vec<_>>()
                })
            })
            .collect();
        for thread in 0..2_u64 {
            let (controller, handed) = (&controller, &world.handed);
            scope.spawn(move || {
                for round in 0..20_000_u64 {
                    controller.trigger(device((round * 2 + thread) % 160), now);
                    if round % 10 == 0 {
                        let serials: Vec<u64> =
                            handed.lock().unwrap().iter().map(|sent| sent.serial).collect();
                        for serial in serials {
                            controller.report(serial, now, success());
                        }
                    }
                }
            });
        }
        submitters.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let begun = Instant::now();
    while controller.active() > 0 {
        for number in 0..160 {
            controller.trigger(device(number), now);
        }
        for sent in world.handed() {
            controller.report(sent.serial, now, success());
        }
        controller.flush().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    let mut sent = world.handed_ids();
    sent.sort_unstable();
    ids.sort_unstable();
    assert_eq!(sent, ids);
    world.reopen(true);
    assert_eq!(world.controller.active(), 0);
}

/// The documented figure: payload and some 200 bytes, with the action and its own 100.
#[test]
fn a_waiting_request_is_small() {
    assert!(size_of::<crate::device::Entry>() <= 104, "{}", size_of::<crate::device::Entry>());
    assert!(size_of::<Action>() <= 64, "{}", size_of::<Action>());
}
