//! From a host to the addresses that may be connected to at this moment.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;
use hickory_resolver::TokioResolver;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;

use super::host::Host;
use super::policy::{Blocked, NetworkPolicy};
use super::servers::Servers;

/// The longest that a look-up takes in all: less than the 5 s that a connection may take, so that
/// a dead name server is told from a dead endpoint.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// Addresses of a name that are used, half of them of each family: a name with hundreds of
/// addresses must not make hundreds of attempts.
pub const ADDRESSES_MAX: usize = 8;
/// How long the slower family of addresses is waited for (RFC 8305 §3).
const FAMILY_DELAY: Duration = Duration::from_millis(50);

/// Looks names up and judges their addresses. Cheap to clone; clones share what they remember.
#[derive(Debug, Clone)]
pub struct Resolver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policy: NetworkPolicy,
    servers: Servers,
}

/// Why there is no address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// There is, but it must not be reached.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// The name does not exist, or has no address.
    #[error("{0} has no address")]
    NotFound(String),
    /// The name servers do not answer the question.
    #[error("the name server answered {code} to the question for {name}")]
    Refused {
        /// The name.
        name: String,
        /// Such as `SERVFAIL`.
        code: String,
    },
    /// The name servers do not answer.
    #[error("no name server answered the question for {0} in time")]
    TimedOut(String),
    /// No name server can be asked. The system of the gateway is at fault.
    #[error("no name server can be asked for {name}: {text}")]
    Unreachable {
        /// The name.
        name: String,
        /// Why.
        text: String,
    },
}

impl Resolver {
    /// A resolver that keeps to `policy`. It reads the system's configuration at the first use.
    pub fn new(policy: NetworkPolicy) -> Self {
        let servers = Servers::new(policy.dns_servers.clone());
        Self(Arc::new(Inner { policy, servers }))
    }

    /// What it keeps to.
    pub fn policy(&self) -> &NetworkPolicy {
        &self.0.policy
    }

    /// The addresses of `host` that may be connected to now: at least one, at most
    /// [`ADDRESSES_MAX`]. To be called for every connection, not once.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let host = self.0.policy.checked_host(host)?;
        let name = match &host {
            Host::Address(address) => return Ok(vec![SocketAddr::new(*address, port)]),
            Host::Name(name) => name,
        };
        let lookup = tokio::time::timeout(LOOKUP_TIMEOUT, self.lookup(name));
        let found = lookup.await.map_err(|_| ResolveError::TimedOut(name.clone()))??;
        let allowed = self.allowed(&host, &found)?;
        if allowed.is_empty() {
            return Err(ResolveError::NotFound(name.clone()));
        }
        Ok(allowed.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let client = self.0.servers.client().map_err(|error| judge(name, &error))?;
        // The system's search list makes names of inside from others, so it is for those alone who
        // may go there. A dot at the end keeps it away.
        let dot = if self.0.policy.allow_networks.is_empty() { "." } else { "" };
        let question = format!("{name}{dot}");
        let four = pin!(addresses(&client, &question, RecordType::A));
        let six = pin!(addresses(&client, &question, RecordType::AAAA));
        let (first, second) = select(four, six).await.factor_first();
        merge(first, second).await.map_err(|error| judge(name, &error))
    }

    /// Those that the policy allows; an error where there are others alone.
    fn allowed(&self, host: &Host, found: &[IpAddr]) -> Result<Vec<IpAddr>, Blocked> {
        let mut blocked = None;
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for address in found {
            let family = if address.is_ipv4() { &mut four } else { &mut six };
            match self.0.policy.check_address(host, *address) {
                Ok(()) if family.len() < ADDRESSES_MAX / 2 => family.push(*address),
                Ok(()) => {}
                Err(error) => blocked = blocked.or(Some(error)),
            }
        }
        // IPv4 first: a gateway without IPv6 is more common than an endpoint without IPv4.
        four.append(&mut six);
        match blocked {
            Some(error) if four.is_empty() => Err(error),
            _ => Ok(four),
        }
    }
}

async fn addresses(
    client: &TokioResolver,
    name: &str,
    family: RecordType,
) -> Result<Vec<IpAddr>, NetError> {
    let answer: Lookup = client.lookup(name, family).await?;
    Ok(answer.answers().iter().filter_map(|record| record.data.ip_addr()).collect())
}

/// The addresses of both families, where the first is not kept waiting long by the second.
async fn merge(
    first: Result<Vec<IpAddr>, NetError>,
    second: impl Future<Output = Result<Vec<IpAddr>, NetError>>,
) -> Result<Vec<IpAddr>, NetError> {
    match first {
        Ok(mut found) if !found.is_empty() => {
            if let Ok(Ok(more)) = tokio::time::timeout(FAMILY_DELAY, second).await {
                found.extend(more);
            }
            Ok(found)
        }
        // That a name has no address of one family says nothing; a failure does.
        Ok(_) => second.await,
        Err(error) => match second.await {
            Err(other) if error.is_no_records_found() => Err(other),
            Ok(found) if found.is_empty() => Err(error),
            Ok(found) => Ok(found),
            Err(_) => Err(error),
        },
    }
}

fn judge(name: &str, error: &NetError) -> ResolveError {
    let name = name.to_owned();
    match error {
        NetError::Timeout => ResolveError::TimedOut(name),
        NetError::Dns(DnsError::NoRecordsFound(no)) => match no.response_code {
            ResponseCode::NXDomain | ResponseCode::NoError => ResolveError::NotFound(name),
            code => ResolveError::Refused { name, code: spelled(code) },
        },
        NetError::Dns(DnsError::ResponseCode(ResponseCode::NXDomain)) => {
            ResolveError::NotFound(name)
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            ResolveError::Refused { name, code: spelled(*code) }
        }
        other => ResolveError::Unreachable { name, text: other.to_string() },
    }
}

/// As the tools of name servers spell it.
fn spelled(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        other => u16::from(other).to_string(),
    }
}

impl Resolve for Resolver {
    /// The port is the URL's, which the client puts in place of 0.
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let found = resolver.resolve(name.as_str(), 0).await?;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}
