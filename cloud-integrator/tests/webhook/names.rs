//! Names of customers' endpoints: what bad name servers do to a look-up, and that no name leads
//! where the gateway must not go, also when its address changes later.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cloud_integrator::{
    ADDRESSES_MAX, Blocked, LOOKUP_TIMEOUT, NetworkPolicy, ResolveError, Resolver,
};

use crate::webhook::dns::{NameServer, Reply};

const NAME: &str = "hook.example";

fn resolver(server: &NameServer, networks: &[&str]) -> Resolver {
    Resolver::new(NetworkPolicy {
        allow_networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        dns_servers: vec![server.address],
        ..NetworkPolicy::default()
    })
}

fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_name_leads_to_its_addresses_of_both_families() {
    let server = NameServer::start().await;
    let resolver = resolver(&server, &[]);
    server.tell_addresses(NAME, &["2606:4700::1111", "1.1.1.1"]);
    let found = resolver.resolve(NAME, 443).await.unwrap();
    assert!(found.contains(&"1.1.1.1:443".parse().unwrap()), "{found:?}");
    server.tell_addresses(NAME, &["2606:4700::1111"]);
    let found = resolver.resolve(NAME, 443).await.unwrap();
    assert_eq!(found, sockets(&["[2606:4700::1111]:443"]));
}

#[tokio::test]
async fn what_is_wrong_with_a_name_is_told_apart() {
    let server = NameServer::start().await;
    let resolver = resolver(&server, &[]);
    let missing = resolver.resolve("missing.example", 443).await.unwrap_err();
    assert_eq!(missing.to_string(), "missing.example has no address");
    server.tell_addresses("empty.example", &[]);
    let empty = resolver.resolve("empty.example", 443).await.unwrap_err();
    assert_eq!(empty, ResolveError::NotFound("empty.example".to_owned()));
    server.tell("ill.example", Reply::Failure);
    let ill = resolver.resolve("ill.example", 443).await.unwrap_err();
    assert_eq!(
        ill.to_string(),
        "the name server answered SERVFAIL to the question for ill.example"
    );
    let no_name = resolver.resolve("a b", 443).await.unwrap_err();
    assert!(matches!(no_name, ResolveError::Blocked(Blocked::Host(_))));
}

#[tokio::test]
async fn a_silent_name_server_costs_the_time_limit_and_nothing_else() {
    let server = NameServer::start().await;
    let resolver = resolver(&server, &[]);
    server.tell("mute.example", Reply::Silence);
    server.tell_addresses(NAME, &["1.1.1.1"]);
    let start = Instant::now();
    let waits = (0..100).map(|_| resolver.resolve("mute.example", 443));
    let waits = futures_util::future::join_all(waits);
    let (mute, found) = tokio::join!(waits, resolver.resolve(NAME, 443));
    for outcome in mute {
        assert_eq!(outcome.unwrap_err(), ResolveError::TimedOut("mute.example".to_owned()));
    }
    assert_eq!(found.unwrap(), sockets(&["1.1.1.1:443"]));
    // The limit and much of patience for a slow machine.
    assert!(start.elapsed() < LOOKUP_TIMEOUT + Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test]
async fn two_hundred_addresses_are_a_few_connections() {
    let server = NameServer::start().await;
    let resolver = resolver(&server, &[]);
    let addresses: Vec<_> = (0..200).map(|last| [11, 0, 0, last].into()).collect();
    server.tell(NAME, Reply::Addresses(addresses, 60));
    let found = resolver.resolve(NAME, 443).await.unwrap();
    assert!(!found.is_empty() && found.len() <= ADDRESSES_MAX, "{}", found.len());
    assert_eq!(found.iter().collect::<HashSet<_>>().len(), found.len());
}

#[tokio::test]
async fn a_name_that_turns_inward_is_refused_from_then_on() {
    let server = NameServer::start().await;
    let resolver = resolver(&server, &[]);
    server.tell_addresses(NAME, &["1.1.1.1"]);
    assert_eq!(resolver.resolve(NAME, 443).await.unwrap(), sockets(&["1.1.1.1:443"]));
    for inward in ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "::ffff:127.0.0.1"] {
        server.tell_addresses(NAME, &[inward]);
        let error = resolver.resolve(NAME, 443).await.unwrap_err();
        assert!(matches!(error, ResolveError::Blocked(Blocked::Address(_))), "{inward}");
    }
    server.tell_addresses(NAME, &["1.1.1.1"]);
    assert_eq!(resolver.resolve(NAME, 443).await.unwrap(), sockets(&["1.1.1.1:443"]));
}

/// What failed told the first address of a name: whoever could test a webhook could look up names
/// of the gateway's network, one by one.
#[tokio::test]
async fn an_address_inside_is_not_told() {
    let server = NameServer::start().await;
    server.tell_addresses(NAME, &["10.0.0.5"]);
    let error = resolver(&server, &[]).resolve(NAME, 443).await.unwrap_err();
    assert!(!format!("{error:?}").contains("10.0.0.5"), "{error:?}");
    assert_eq!(
        error.to_string(),
        "hook.example has no address that the gateway may reach; an operator can allow networks \
         beside the public Internet"
    );
}

#[tokio::test]
async fn of_a_name_with_many_addresses_only_those_that_are_allowed_are_used() {
    let server = NameServer::start().await;
    server.tell_addresses(NAME, &["127.0.0.1", "10.0.0.5", "1.1.1.1", "169.254.169.254"]);
    let found = resolver(&server, &[]).resolve(NAME, 443).await.unwrap();
    assert_eq!(found, sockets(&["1.1.1.1:443"]));
    let found = resolver(&server, &["10.0.0.0/8"]).resolve(NAME, 443).await.unwrap();
    assert_eq!(found, sockets(&["10.0.0.5:443", "1.1.1.1:443"]));
}

#[tokio::test]
async fn names_of_inside_are_not_even_asked_for_unless_a_network_is_allowed() {
    let server = NameServer::start().await;
    server.tell_addresses("hook.internal", &["10.0.0.5"]);
    for name in ["hook.internal", "localhost", "redis", "metadata.google.internal"] {
        let error = resolver(&server, &[]).resolve(name, 443).await.unwrap_err();
        assert!(matches!(error, ResolveError::Blocked(Blocked::Name(_))), "{name}");
    }
    assert_eq!(server.questions(), 0);
    let open = resolver(&server, &["10.0.0.0/8"]);
    assert_eq!(open.resolve("hook.internal", 443).await.unwrap(), sockets(&["10.0.0.5:443"]));
    // This machine is none of that network.
    let error = open.resolve("localhost", 443).await.unwrap_err();
    assert!(matches!(error, ResolveError::Blocked(Blocked::Address(_))), "{error}");
}

#[tokio::test]
async fn answers_are_remembered_for_their_time_alone() {
    let server = NameServer::start().await;
    let resolver = resolver(&server, &[]);
    let address = "1.1.1.1".parse().unwrap();
    server.tell(NAME, Reply::Addresses(vec![address, "2606:4700::1".parse().unwrap()], 600));
    // A question for the slower family is given up after a while, and asked again.
    let mut asked = usize::MAX;
    for _ in 0..100 {
        let before = server.questions();
        resolver.resolve(NAME, 443).await.unwrap();
        asked = server.questions();
        if asked == before {
            break;
        }
    }
    server.tell_addresses(NAME, &["11.0.0.1"]);
    let found = resolver.resolve(NAME, 443).await.unwrap();
    assert!(found.contains(&SocketAddr::new(address, 443)), "{found:?}");
    assert_eq!(server.questions(), asked);
    server.tell("brief.example", Reply::Addresses(vec![address], 0));
    resolver.resolve("brief.example", 443).await.unwrap();
    server.tell_addresses("brief.example", &["11.0.0.1"]);
    let found = resolver.resolve("brief.example", 443).await.unwrap();
    assert_eq!(found, sockets(&["11.0.0.1:443"]));
}
