//! How the gateway shows AWS who it is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::sts::AssumeRoleProvider;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use reqwest::{Client, ClientBuilder, redirect};
use thiserror::Error;
use zeroize::Zeroizing;

use super::exchange::Exchange;
use crate::network::{Blocked, Resolver};
use crate::sink::DELIVERY_TIMEOUT;

/// TCP and TLS together, as for webhooks.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are closed before the load balancers of AWS do it (60 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// Of HTTPS; 8443 is where AWS IoT Core has it beside 443.
const USUAL_PORTS: [u16; 2] = [443, 8_443];
/// What the hosts of AWS end with: in all regions but the Chinese ones, in these, and those that
/// have IPv6 too.
const AWS_DOMAINS: [&str; 4] =
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"];
/// Characters of a foreign host in an error: names have at most 253.
const HOST_CHARS_SHOWN: usize = 253;
/// As the sessions of an assumed role are called in the customer's audit log.
const SESSION_NAME: &str = "simgate";
/// A session of a role: the shortest that AWS gives is 15 minutes, the default an hour. It is
/// renewed before it ends.
const SESSION_LENGTH: Duration = Duration::from_secs(3_600);

/// How the gateway reaches AWS.
#[derive(Debug, Clone, Default)]
pub struct AwsOptions {
    /// The gateway's own keys; without them the standard chain: environment, profile, container,
    /// metadata of the instance.
    pub keys: Option<AwsKeys>,
    /// Where roles are assumed, instead of the public endpoint of the region.
    pub sts_endpoint: Option<String>,
}

/// An access key. `Debug` does not show it.
#[derive(Clone)]
pub struct AwsKeys {
    /// Such as `AKIA...`.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: Zeroizing<String>,
    /// For keys that are lent.
    pub session_token: Option<Zeroizing<String>>,
}

/// A role that the gateway's credentials may assume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsRole {
    arn: String,
    external_id: Option<String>,
}

/// Why the gateway cannot reach AWS at all. Its configuration is at fault.
#[derive(Debug, Error)]
pub enum AwsAccessError {
    /// TLS cannot be set up, e.g. because the system has no root certificates.
    #[error("the client for aws cannot be set up: {0}")]
    Setup(#[source] reqwest::Error),
}

/// Why something that names a place at AWS is refused. The customer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidAws {
    /// Not the name of a region.
    #[error("region {0:?} is not valid, allowed: a name such as eu-central-1")]
    Region(String),
    /// Not the ARN of a role.
    #[error("role {0:?} is not valid, allowed: arn:aws:iam::<12 digits>:role/<name>")]
    Role(String),
    /// Not an external id.
    #[error(
        "external id of {0} characters is not valid, allowed: 2 to 1224 letters, digits and \
         +=,.@:/-_"
    )]
    ExternalId(usize),
    /// Not an endpoint.
    #[error(
        "endpoint {0:?} is not valid, allowed: a host name such as x-ats.iot.eu-central-1.amazonaws.com"
    )]
    Endpoint(String),
    /// An endpoint of somebody else, who would get to see a signed request.
    #[error(
        "endpoint {host:?} is none of AWS IoT Core in {region}, allowed: hosts below \
         iot.{region}.amazonaws.com; an operator can allow others in a network"
    )]
    Foreign {
        /// The host.
        host: String,
        /// The region.
        region: String,
    },
    /// An endpoint that the gateway must not reach.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// Meant for the sink that speaks MQTT.
    #[error("the integration delivers by MQTT, not by the HTTPS API")]
    Transport,
}

/// The gateway's way to AWS, shared by everything that needs it. Cheap to clone.
#[derive(Clone)]
pub struct AwsAccess(Arc<Inner>);

struct Inner {
    options: AwsOptions,
    /// For the credentials: they may come from a link-local address.
    credentials: Exchange,
    /// For what customers configure.
    services: Exchange,
    resolver: Resolver,
}

impl AwsAccess {
    /// Sets up the clients; reaches for nothing yet. Of what customers configure, only what
    /// `resolver` lets through is reached.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(options: AwsOptions, resolver: Resolver) -> Result<Self, AwsAccessError> {
        let made = |builder: ClientBuilder| builder.build().map_err(AwsAccessError::Setup);
        let credentials = Exchange::new(made(client())?);
        let services = Exchange::new(made(client().dns_resolver(resolver.clone()))?);
        Ok(Self(Arc::new(Inner { options, credentials, services, resolver })))
    }

    /// What clients of AWS are made from. Reads configuration files of the standard chain afresh,
    /// and asks for no credentials yet: they are asked for when they are needed, and again before
    /// they expire.
    pub async fn config(&self, region: &str, role: Option<&AwsRole>) -> SdkConfig {
        let region = Region::new(region.to_owned());
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(region.clone())
            .http_client(self.0.credentials.clone())
            // Whoever uses it tries again by its own rules.
            .retry_config(aws_config::retry::RetryConfig::disabled());
        if let Ok(name) = AppName::new("simgate") {
            loader = loader.app_name(name);
        }
        if let Some(keys) = &self.0.options.keys {
            loader = loader.credentials_provider(keys.credentials());
        }
        let own = loader.load().await;
        let services = own.to_builder().http_client(self.0.services.clone());
        match role {
            None => services.build(),
            Some(role) => {
                let assumed = SharedCredentialsProvider::new(self.assume(&own, role).await);
                services.credentials_provider(assumed).build()
            }
        }
    }

    async fn assume(&self, own: &SdkConfig, role: &AwsRole) -> AssumeRoleProvider {
        let mut config = own.to_builder();
        if let Some(endpoint) = &self.0.options.sts_endpoint {
            config = config.endpoint_url(endpoint.clone());
        }
        let mut builder = AssumeRoleProvider::builder(role.arn.clone())
            .session_name(SESSION_NAME)
            .session_length(SESSION_LENGTH)
            .configure(&config.build());
        if let Some(external_id) = &role.external_id {
            builder = builder.external_id(external_id.clone());
        }
        builder.build().await
    }

    /// The URL of an endpoint that a customer named: its host, or a URL without a path. It must be
    /// of AWS IoT Core in `region`, or stand where an operator allows it: a request that is signed
    /// shows the access key's id and the session's token to whoever answers.
    ///
    /// # Errors
    /// Where it is no such thing, or the gateway must not reach it.
    pub fn endpoint(&self, text: &str, region: &str) -> Result<String, InvalidAws> {
        let invalid = || InvalidAws::Endpoint(text.chars().take(200).collect());
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = reqwest::Url::parse(&full).map_err(|_| invalid())?;
        let is_bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let policy = self.0.resolver.policy();
        let host = url.host_str().ok_or_else(invalid)?;
        let is_secure = url.scheme() == "https";
        let is_plain = url.scheme() == "http" && policy.allows_plain(host);
        if !is_bare || !(is_secure || is_plain) {
            return Err(invalid());
        }
        policy.check(host, url.port_or_known_default().unwrap_or_default(), &USUAL_PORTS)?;
        if !is_of_iot(host, region) && !policy.opens(host) {
            let host = host.chars().take(HOST_CHARS_SHOWN).collect();
            return Err(InvalidAws::Foreign { host, region: region.to_owned() });
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }
}

impl AwsRole {
    /// The largest external id (the API of STS).
    const EXTERNAL_ID_CHARS: std::ops::RangeInclusive<usize> = 2..=1_224;

    /// The role, where it can be one.
    ///
    /// # Errors
    /// Where it is not the ARN of a role, or the external id is not valid.
    pub fn new(arn: &str, external_id: Option<&str>) -> Result<Self, InvalidAws> {
        if !is_role_arn(arn) {
            return Err(InvalidAws::Role(arn.chars().take(200).collect()));
        }
        if let Some(id) = external_id {
            let allowed = |char: char| char.is_ascii_alphanumeric() || "_+=,.@:/-".contains(char);
            let chars = id.chars().count();
            if !Self::EXTERNAL_ID_CHARS.contains(&chars) || !id.chars().all(allowed) {
                return Err(InvalidAws::ExternalId(chars));
            }
        }
        Ok(Self { arn: arn.to_owned(), external_id: external_id.map(ToOwned::to_owned) })
    }

    /// The role's name at AWS.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// What the role asks for beside the gateway's identity.
    pub fn external_id(&self) -> Option<&str> {
        self.external_id.as_deref()
    }
}

/// Whether it is a host of AWS IoT Core. Other hosts of AWS belong to customers too: those of
/// functions, buckets and machines.
fn is_of_iot(host: &str, region: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    AWS_DOMAINS
        .iter()
        .filter_map(|domain| host.strip_suffix(domain))
        // Of an interface endpoint.
        .map(|rest| rest.strip_suffix(".vpce").unwrap_or(rest))
        .filter_map(|rest| rest.strip_suffix(region)?.strip_suffix('.'))
        .filter_map(|rest| rest.rsplit('.').next())
        .any(|service| matches!(service, "iot" | "iot-fips"))
}

fn is_role_arn(arn: &str) -> bool {
    let mut parts = arn.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (prefix, partition, service) = (next(), next(), next());
    let (region, account, resource) = (next(), next(), next());
    let name = resource.strip_prefix("role/").unwrap_or_default();
    prefix == "arn"
        && partition.starts_with("aws")
        && service == "iam"
        && region.is_empty()
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && (1..=1_000).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The name of a region, where it can be one.
///
/// # Errors
/// Where it is not.
pub(super) fn checked_region(text: &str) -> Result<&str, InvalidAws> {
    let parts = text.split('-').count();
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    // It becomes part of a host name.
    if !(3..=6).contains(&parts) || text.len() > 32 || !text.bytes().all(allowed) {
        return Err(InvalidAws::Region(text.chars().take(50).collect()));
    }
    Ok(text)
}

fn client() -> ClientBuilder {
    Client::builder()
        .timeout(DELIVERY_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_nodelay(true)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
}

impl AwsKeys {
    fn credentials(&self) -> Credentials {
        let token = self.session_token.as_ref().map(|token| token.to_string());
        Credentials::new(
            self.access_key_id.clone(),
            self.secret_access_key.to_string(),
            token,
            None,
            "configuration",
        )
    }
}

impl fmt::Debug for AwsKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AwsKeys").finish_non_exhaustive()
    }
}

impl fmt::Debug for AwsAccess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AwsAccess").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkPolicy;

    #[test]
    fn what_names_a_place_at_aws_is_checked() {
        for good in ["eu-central-1", "us-gov-west-1", "cn-north-1", "ap-southeast-4"] {
            assert_eq!(checked_region(good), Ok(good));
        }
        for bad in ["", "eu", "eu-central-1.evil.example/", "EU-CENTRAL-1", "a-b-c@d"] {
            assert!(checked_region(bad).is_err(), "{bad}");
        }
        for good in
            ["arn:aws:iam::123456789012:role/simgate", "arn:aws-cn:iam::123456789012:role/a/b"]
        {
            assert!(AwsRole::new(good, Some("x1-_+=,.@:/")).is_ok(), "{good}");
        }
        for bad in ["", "arn:aws:iam::1:role/x", "arn:aws:iam::123456789012:user/x", "simgate"] {
            assert!(AwsRole::new(bad, None).is_err(), "{bad}");
        }
        let role = "arn:aws:iam::123456789012:role/simgate";
        assert_eq!(AwsRole::new(role, Some("x")), Err(InvalidAws::ExternalId(1)));
        assert_eq!(AwsRole::new(role, Some("a b")), Err(InvalidAws::ExternalId(3)));
    }

    #[test]
    fn an_endpoint_is_a_host_and_local_ones_are_for_tests() {
        let access = |allow_http_loopback| {
            let policy = NetworkPolicy { allow_http_loopback, ..NetworkPolicy::default() };
            AwsAccess::new(AwsOptions::default(), Resolver::new(policy)).unwrap()
        };
        let region = "eu-central-1";
        let strict = access(false);
        let host = "a1b2c3-ats.iot.eu-central-1.amazonaws.com";
        let url = format!("https://{host}");
        assert_eq!(strict.endpoint(host, region).as_deref(), Ok(url.as_str()));
        assert_eq!(strict.endpoint(&format!("{url}/"), region).as_deref(), Ok(url.as_str()));
        for bad in ["", "http://h.example", "h.example/x", "u:p@h.example", "h.example?x"] {
            assert!(matches!(strict.endpoint(bad, region), Err(InvalidAws::Endpoint(_))), "{bad}");
        }
        for inside in ["127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "db.internal", "h:22"] {
            let refused = strict.endpoint(inside, region);
            assert!(matches!(refused, Err(InvalidAws::Blocked(_))), "{inside}");
        }
        assert!(access(true).endpoint("http://127.0.0.1:8000", region).is_ok());
        assert!(access(true).endpoint("http://10.0.0.1:8000", region).is_err());
    }

    /// Any public host could be an endpoint, and the gateway signed requests to it: its owner got
    /// to see the id of the gateway's access key and the token of its session.
    #[test]
    fn an_endpoint_is_of_aws_iot_core_or_where_an_operator_allows_it() {
        let access = |networks: &[&str]| {
            let policy = NetworkPolicy {
                allow_networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
                ..NetworkPolicy::default()
            };
            AwsAccess::new(AwsOptions::default(), Resolver::new(policy)).unwrap()
        };
        let is_foreign = |access: &AwsAccess, host: &str, region: &str| {
            matches!(access.endpoint(host, region), Err(InvalidAws::Foreign { .. }))
        };
        let strict = access(&[]);
        for (host, region) in [
            ("iot.eu-central-1.amazonaws.com", "eu-central-1"),
            ("data-ats.iot.eu-central-1.amazonaws.com.", "eu-central-1"),
            ("data.iot-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
            ("a1.ats.iot.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("data-ats.iot.eu-central-1.api.aws", "eu-central-1"),
            ("vpce-0a-1b.data.iot.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ] {
            assert!(strict.endpoint(host, region).is_ok(), "{host}");
            assert!(is_foreign(&strict, host, "us-east-1"), "{host}");
            let longer = format!("{host}x.example.com");
            assert!(is_foreign(&strict, &longer, region), "{longer}");
        }
        for host in [
            "iot.example.com",
            "1.1.1.1",
            "notamazonaws.com",
            "iot.eu-central-1.notamazonaws.com",
            "abc.execute-api.eu-central-1.amazonaws.com",
            "iot.s3-eu-central-1.amazonaws.com",
            "ec2-1-2-3-4.eu-central-1.compute.amazonaws.com",
            "ariot.eu-central-1.amazonaws.com",
            "eu-central-1.amazonaws.com",
        ] {
            assert!(is_foreign(&strict, host, "eu-central-1"), "{host}");
        }
        let open = access(&["10.1.0.0/16", "1.1.1.1"]);
        for host in ["10.1.2.3", "1.1.1.1", "iot.internal"] {
            assert!(open.endpoint(host, "eu-central-1").is_ok(), "{host}");
        }
        for host in ["iot.example.com", "1.1.1.2"] {
            assert!(is_foreign(&open, host, "eu-central-1"), "{host}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let keys = AwsKeys {
            access_key_id: "AKIAEXAMPLE".to_owned(),
            secret_access_key: Zeroizing::new("s3cret".to_owned()),
            session_token: Some(Zeroizing::new("s3cret".to_owned())),
        };
        let options = AwsOptions { keys: Some(keys), ..AwsOptions::default() };
        assert!(!format!("{options:?}").contains("s3cret"));
        let resolver = Resolver::new(NetworkPolicy::default());
        assert!(!format!("{:?}", AwsAccess::new(options, resolver).unwrap()).contains("s3cret"));
    }
}
