//! AWS IoT Core by its HTTPS API.
//!
//! [`AwsAccess`] is how the gateway shows AWS who it is: its own credentials, or a role that they
//! may assume in the customer's account. [`AwsSink`] publishes events with it (docs/aws.md).
//!
//! Requests are made and signed by the SDK of AWS; they travel by the same HTTP client as
//! everything else that the gateway sends, under the same rules of where it may connect.
//!
//! Not here: AWS IoT Core by MQTT, and certificates for devices.

mod access;
mod exchange;
mod failure;
mod sink;

pub use access::{AwsAccess, AwsAccessError, AwsKeys, AwsOptions, AwsRole, InvalidAws};
pub use failure::{AwsFailure, failure_of};
pub use sink::AwsSink;
