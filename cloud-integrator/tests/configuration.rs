//! What a customer does to integrations while they run: create, change, test, delete.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::receiver::{Answer, OK, Received};
use crate::scripted::{raw, scripted_receiver};
use crate::world::{Ledger, PATIENCE, World, interleaved, sealer, until, webhook};
use cloud_integrator::{
    AwsRollout, AwsTarget, AwsTransport, ChangeError, CreateError, EventType, Integration,
    IntegrationState, Integrations, InvalidIntegration, NewIntegration, Settings, Target,
    parse_event_types,
};

/// The same integration with another URL.
async fn with_url(
    integrations: &Integrations,
    id: &str,
    url: &str,
) -> Result<Integration, ChangeError> {
    let url = url.to_owned();
    let edit = move |integration: &mut Integration| {
        if let Target::Webhook(webhook) = &mut integration.target {
            webhook.url = url;
        }
        Ok(())
    };
    integrations.edit(id, edit).await
}

/// The same integration, which sends JSON as JSON or does not.
async fn with_json(
    integrations: &Integrations,
    id: &str,
    enabled: bool,
) -> Result<Integration, ChangeError> {
    let edit = move |integration: &mut Integration| {
        integration.json_payload_enabled = enabled;
        Ok(())
    };
    integrations.edit(id, edit).await
}

#[tokio::test]
async fn configuration_is_checked_and_kept() {
    let world = World::new();
    let integrations = world.integrations();
    integrations.start(world.source.clone()).await.unwrap();
    let one = integrations.create(webhook("http://127.0.0.1:9/one")).await.unwrap();
    let same = integrations.create(webhook("http://127.0.0.1:9/x/../one#f")).await;
    assert!(matches!(same, Err(CreateError::Conflict)));
    let unnamed = NewIntegration { name: String::new(), ..webhook("http://127.0.0.1:9/two") };
    assert!(matches!(integrations.create(unnamed).await, Err(CreateError::Invalid(_))));
    let two = integrations.create(webhook("http://127.0.0.1:9/two")).await.unwrap();
    let clash = with_url(&integrations, &two.id, "http://127.0.0.1:9/one").await;
    assert!(matches!(clash, Err(ChangeError::Conflict)));
    let edit = |integration: &mut Integration| {
        integration.json_payload_enabled = true;
        integration.event_types = parse_event_types(&[("LOCATION".to_owned(), None)])?;
        Ok(())
    };
    let patched = integrations.edit(&two.id, edit).await.unwrap();
    assert!(patched.json_payload_enabled && patched.event_types.contains(EventType::Location));
    let restart = integrations.restart(&two.id).await;
    let found = IntegrationState::RolloutDone;
    assert!(matches!(restart, Err(ChangeError::State { found: at, .. }) if at == found));
    integrations.create(webhook("http://127.0.0.1:9/three")).await.unwrap();
    let four = integrations.create(webhook("http://127.0.0.1:9/four")).await;
    assert!(matches!(four, Err(CreateError::TooMany(3))));
    integrations.delete(&one.id).await.unwrap();
    assert!(matches!(integrations.delete(&one.id).await, Err(ChangeError::NotFound(_))));
    integrations.shutdown(Duration::ZERO).await;
    assert_eq!(world.integrations().list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_test_reports_and_changes_nothing() {
    let world = World::new();
    let ledger = Ledger::default();
    let answers = |_: &Received<'_>, number: usize| match number {
        0 => OK,
        _ => raw("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n"),
    };
    let url = scripted_receiver(&ledger, answers).await;
    let integrations = world.integrations();
    let created = integrations.create(webhook(&url)).await.unwrap();
    let report = integrations.test(&created.id).await.unwrap();
    assert_eq!((report.success, report.message.as_str()), (true, "Test was successful"));
    let report = integrations.test(&created.id).await.unwrap();
    assert!(!report.success);
    assert_eq!(report.message, "Test failed, status: the endpoint answered 500");
    assert_eq!(integrations.find(&created.id).await.unwrap(), Some(created));
    assert!(matches!(integrations.test("no").await, Err(ChangeError::NotFound(_))));
}

#[tokio::test]
async fn a_new_integration_gets_nothing_old_and_a_mended_url_gets_what_waited() {
    let world = World::new();
    let ledger = Ledger::default();
    let integrations = world.integrations();
    integrations.start(world.source.clone()).await.unwrap();
    world.send(&[(1, 99)]).await;
    let dead = integrations.create(webhook("http://127.0.0.1:1/")).await.unwrap();
    world.send(&interleaved(3, 5)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let url = scripted_receiver(&ledger, |_, _| OK).await;
    with_url(&integrations, &dead.id, &url).await.unwrap();
    until("what waited", || ledger.taken_once().len() == 15).await;
    integrations.delete(&dead.id).await.unwrap();
    world.send(&[(1, 98)]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    ledger.assert_complete_and_in_order(3, 5);
}

/// A client that hung up in the middle of its PATCH took the forwarder with it: the old one was
/// gone, the new one never began, and nothing was pushed until the gateway was started again.
#[tokio::test]
async fn a_change_whose_caller_hangs_up_is_still_made() {
    let world = World::new();
    let ledger = Ledger::default();
    let integrations = world.integrations();
    integrations.start(world.source.clone()).await.unwrap();
    // An endpoint that is slow: the forwarder cannot be stopped at once.
    let slow = |_: &Received<'_>, _: usize| Answer { pause: Duration::from_millis(300), ..OK };
    let count = Arc::new(AtomicUsize::new(0));
    let requests = Arc::clone(&count);
    let url = scripted_receiver(&Ledger::default(), move |request, number| {
        requests.fetch_add(1, Ordering::Relaxed);
        slow(request, number)
    })
    .await;
    let created = integrations.create(webhook(&url)).await.unwrap();
    world.send(&[(1, 0)]).await;
    until("a slow attempt", || count.load(Ordering::Relaxed) > 0).await;
    let url = scripted_receiver(&ledger, |_, _| OK).await;
    let call = with_url(&integrations, &created.id, &url);
    let hung_up = tokio::time::timeout(Duration::from_millis(50), call).await;
    assert!(hung_up.is_err(), "the call was dropped in the middle");
    world.send(&[(2, 1)]).await;
    until("the new endpoint", || !ledger.taken_once().is_empty()).await;
    integrations.shutdown(PATIENCE).await;
    let target = integrations.find(&created.id).await.unwrap().unwrap().target;
    assert!(matches!(target, Target::Webhook(webhook) if webhook.url == url));
}

/// The same for calls that are dropped wherever they wait: what the table says is what runs, and a
/// shutdown leaves nothing running.
#[tokio::test]
async fn calls_that_are_dropped_anywhere_leave_what_the_table_says() {
    let world = World::new();
    let ledger = Ledger::default();
    let integrations = world.integrations();
    integrations.start(world.source.clone()).await.unwrap();
    let url = scripted_receiver(&ledger, |_, _| OK).await;
    for micros in (0..3_000).step_by(150) {
        let moment = Duration::from_micros(micros);
        let _ = tokio::time::timeout(moment, integrations.create(webhook(&url))).await;
        for integration in integrations.list().await.unwrap() {
            let call = with_json(&integrations, &integration.id, true);
            let _ = tokio::time::timeout(moment, call).await;
            let _ = tokio::time::timeout(moment, integrations.delete(&integration.id)).await;
        }
    }
    // Waits for a change that still runs.
    let created = integrations.create(webhook(&url)).await;
    assert!(matches!(created, Ok(_) | Err(CreateError::Conflict)));
    world.send(&[(7, 7)]).await;
    until("a delivery", || !ledger.taken_once().is_empty()).await;
    let id = integrations.list().await.unwrap()[0].id.clone();
    let call = with_json(&integrations, &id, false);
    let _ = tokio::time::timeout(Duration::from_micros(300), call).await;
    integrations.shutdown(PATIENCE).await;
    let count = ledger.attempts().len();
    world.send(&[(7, 8)]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ledger.attempts().len(), count, "nothing runs after a shutdown");
}

#[tokio::test]
async fn a_paused_integration_gets_what_waited_when_it_goes_on() {
    let world = World::new();
    let ledger = Ledger::default();
    let integrations = world.integrations();
    integrations.start(world.source.clone()).await.unwrap();
    let url = scripted_receiver(&ledger, |_, _| OK).await;
    let id = integrations.create(webhook(&url)).await.unwrap().id;
    world.send(&[(1, 0)]).await;
    until("the first", || ledger.taken_once().len() == 1).await;
    assert!(integrations.pause(&id).await.unwrap().paused);
    world.send(&[(1, 1), (1, 2)]).await;
    // Neither a change nor a restart of the gateway makes it go on.
    with_json(&integrations, &id, true).await.unwrap();
    integrations.shutdown(PATIENCE).await;
    integrations.start(world.source.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ledger.attempts().len(), 1);
    assert!(!integrations.resume(&id).await.unwrap().paused);
    until("the rest", || ledger.taken_once().len() == 3).await;
    integrations.shutdown(PATIENCE).await;
    assert_eq!(ledger.attempts().len(), 3);
}

/// An integration whose sink could not be made (an address that the operator forbade meanwhile)
/// stopped without a word: it stayed active, and its messages expired.
#[tokio::test]
async fn an_integration_that_cannot_run_any_more_has_failed_and_says_why() {
    let world = World::new();
    let integrations = world.integrations();
    integrations.start(world.source.clone()).await.unwrap();
    let id = integrations.create(webhook("http://127.0.0.1:9/")).await.unwrap().id;
    integrations.shutdown(Duration::ZERO).await;
    let stricter = Integrations::open(&world.file, sealer(), Settings::default()).unwrap();
    stricter.start(world.source.clone()).await.unwrap();
    let found = stricter.find(&id).await.unwrap().unwrap();
    assert_eq!(found.state, IntegrationState::IntegrationFailed);
    assert!(found.error.unwrap().starts_with("it cannot run: url has scheme"));
    let end = world.log.end();
    assert!(end > message_log::Offset::BEGINNING, "the administration log has it");
    // A restart tells what is wrong, and so does a test.
    let (_, report) = stricter.restart(&id).await.unwrap();
    assert!(!report.success && report.message.starts_with("Restart failed, url has scheme"));
    // What has nothing to do with it can still be changed.
    assert!(with_json(&stricter, &id, true).await.unwrap().json_payload_enabled);
    stricter.shutdown(PATIENCE).await;
}

/// A customer who named the id of another integration as external id had its role assumed: AWS
/// believed that it was the other one.
#[tokio::test]
async fn the_role_of_one_integration_is_of_no_use_to_another() {
    let world = World::new();
    let integrations = world.integrations();
    integrations.start(world.source.clone()).await.unwrap();
    let aws = |external_id: Option<&str>| {
        let role_arn = Some("arn:aws:iam::123456789012:role/simgate".to_owned());
        let external_id = external_id.map(str::to_owned);
        let transport = AwsTransport::Sdk { role_arn, external_id };
        let region = "eu-central-1".to_owned();
        let target = AwsTarget { region, transport, ..AwsTarget::default() };
        NewIntegration { target: Target::Aws(target), ..webhook("") }
    };
    let one = integrations.create(aws(None)).await.unwrap();
    let Target::Aws(AwsTarget { transport: AwsTransport::Sdk { external_id, .. }, .. }) =
        &one.target
    else {
        panic!("{:?}", one.target)
    };
    assert_eq!(external_id.as_deref(), Some(one.id.as_str()));
    let other = integrations.create(aws(Some(&one.id))).await;
    assert!(matches!(other, Err(CreateError::Invalid(InvalidIntegration::ExternalId))));
    assert!(integrations.create(aws(Some("another-text"))).await.is_ok());
    // Whoever has the token of a rollout alone does not get the gateway's own account.
    let (_, token) = integrations.begin_rollout(aws(None)).await.unwrap();
    let target = AwsTarget { region: "eu-central-1".to_owned(), ..AwsTarget::default() };
    let ended = integrations.finish_rollout(AwsRollout { token, target }).await;
    assert!(matches!(ended, Err(ChangeError::Invalid(InvalidIntegration::NoRole))));
    integrations.shutdown(Duration::ZERO).await;
}
