//! The listeners for devices, as the configuration asks for them.

use device_integrator::{CoapLimits, ListenerConfig, ListenersConfig, Speaks};

use crate::config::Config;

/// What to listen on.
pub(crate) fn config(config: &Config) -> ListenersConfig {
    let (devices, sockets) = (&config.devices, config.sockets());
    let udp = devices.udp.iter().map(|listener| ListenerConfig {
        address: listener.listen,
        // The configuration refuses listeners that are neither on loopback nor declared trusted.
        is_vouched: true,
        speaks: Speaks::Udp { payload_bytes_max: listener.payload_bytes_max },
    });
    let coap = devices.coap.iter().map(|listener| ListenerConfig {
        address: listener.listen,
        is_vouched: true,
        speaks: Speaks::Coap(CoapLimits {
            body_bytes_max: listener.body_bytes_max,
            exchanges_max: listener.exchanges_max,
        }),
    });
    let coaps = devices.coaps.iter().map(|listener| {
        let limits = CoapLimits {
            body_bytes_max: listener.body_bytes_max,
            exchanges_max: listener.exchanges_max,
        };
        ListenerConfig {
            address: listener.listen,
            is_vouched: listener.is_vouched(),
            speaks: Speaks::Coaps(limits, listener.secure(sockets).into()),
        }
    });
    ListenersConfig { sockets, listeners: udp.chain(coap).chain(coaps).collect() }
}
