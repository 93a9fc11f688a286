//! The listeners for devices, as the configuration asks for them.

use std::net::SocketAddr;

use device_integrator::{CoapLimits, ListenerConfig, ListenersConfig, Speaks};

use crate::config::{CoapListener, CoapsListener, Config};

/// What to listen on.
pub(crate) fn config(config: &Config) -> ListenersConfig {
    let (devices, sockets) = (&config.devices, config.sockets());
    let udp = devices.udp.iter().map(|listener| ListenerConfig {
        address: listener.listen,
        // The configuration refuses listeners that are neither on loopback nor declared trusted.
        is_vouched: true,
        speaks: Speaks::Udp { payload_bytes_max: listener.payload_bytes_max },
    });
    let clear = |speaks: fn(CoapLimits) -> Speaks| {
        move |listener: &CoapListener| ListenerConfig {
            address: listener.listen,
            // As above.
            is_vouched: true,
            speaks: speaks(listener.limits()),
        }
    };
    let secure = |speaks: fn(CoapLimits, Box<_>) -> Speaks| {
        move |listener: &CoapsListener| ListenerConfig {
            address: listener.listen,
            is_vouched: listener.is_vouched(),
            speaks: speaks(listener.limits(), listener.secure(sockets).into()),
        }
    };
    let listeners = udp
        .chain(devices.coap.iter().map(clear(Speaks::Coap)))
        .chain(devices.coaps.iter().map(secure(Speaks::Coaps)))
        .chain(devices.lwm2m.iter().map(clear(Speaks::Lwm2m)))
        .chain(devices.lwm2ms.iter().map(secure(Speaks::Lwm2ms)))
        .chain(commands(config));
    ListenersConfig { sockets, listeners: listeners.collect() }
}

/// The socket of plain requests to devices; what it hears is as good as the CoAP listener's.
fn commands(config: &Config) -> Option<ListenerConfig> {
    let devices = &config.devices;
    let clear = devices.coap.iter().chain(&devices.lwm2m);
    let mut hosts = clear
        .map(|listener| listener.listen)
        .chain(devices.udp.iter().map(|listener| listener.listen))
        .chain(devices.coaps.iter().chain(&devices.lwm2ms).map(|listener| listener.listen));
    let beside = hosts.next().map(|host| SocketAddr::new(host.ip(), 0));
    let limits =
        devices.coap.first().map_or_else(CoapListener::default_limits, CoapListener::limits);
    Some(ListenerConfig {
        // Without any listener there is no device either.
        address: devices.commands_from.or(beside)?,
        // As good as the plain listeners, which are all trusted.
        is_vouched: !(devices.coap.is_empty()
            && devices.lwm2m.is_empty()
            && devices.udp.is_empty()),
        speaks: Speaks::Commands(limits),
    })
}
