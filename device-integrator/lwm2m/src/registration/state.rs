//! A registration as it is kept on disk: a version byte, fixed fields, then lists with their
//! lengths, numbers in big-endian order. A typical device needs under 200 bytes.

use std::net::{IpAddr, SocketAddr};

use coap::wire::ContentFormat;
use vocabulary::Timestamp;

use super::{Binding, Links, Observation, Registration, RegistrationId, Version};
use crate::contact::{Link, Security};
use crate::path::Path;

/// The version of the form.
const VERSION: u8 = 1;

/// Why bytes are no registration: they were damaged, or written by a newer program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Of another version.
    #[error("state has version {0}, known: 1")]
    Version(u8),
    /// They end early, go on too long or contradict themselves.
    #[error("state is damaged at byte {0}")]
    Damaged(usize),
}

/// A registration from disk; its contact lacks the seat.
pub(crate) struct Restored {
    pub(crate) registration: Registration,
    pub(crate) link: Option<Link>,
}

/// Writes a registration; observations stand beside it.
pub(crate) fn encode<'a>(
    registration: &Registration,
    link: Option<Link>,
    observations: impl ExactSizeIterator<Item = &'a Observation>,
) -> Vec<u8> {
    let mut state = Vec::with_capacity(192);
    state.push(VERSION);
    state.extend_from_slice(&registration.id.0);
    state.push(match registration.version {
        Version::V1_0 => 0,
        Version::V1_1 => 1,
    });
    state.push(registration.binding.bits());
    state.push(match registration.security {
        Security::NoSec => 0,
        Security::BootstrapKey => 1,
        Security::ServerKey => 2,
    });
    state.extend_from_slice(&registration.lifetime_seconds.to_be_bytes());
    for time in [registration.registered_at, registration.updated_at, registration.expires_at] {
        state.extend_from_slice(&time.as_micros().to_be_bytes());
    }
    write_link(&mut state, link);
    write_text(&mut state, registration.sms.as_deref());
    write_links(&mut state, &registration.links);
    write_count(&mut state, observations.len());
    for observation in observations {
        state.extend_from_slice(&observation.token.to_be_bytes());
        state.push(u8::from(observation.composite));
        let format = observation.format.map_or(NO_FORMAT, |format| format.0);
        state.extend_from_slice(&format.to_be_bytes());
        write_count(&mut state, observation.paths.len());
        for path in &observation.paths {
            state.push(u8::try_from(path.ids().len()).unwrap_or(0));
            path.ids().iter().for_each(|id| state.extend_from_slice(&id.to_be_bytes()));
        }
    }
    state
}

/// Stands for no format; the registry of formats reserves it.
const NO_FORMAT: u16 = u16::MAX;

fn write_count(state: &mut Vec<u8>, count: usize) {
    // Every list is limited far below.
    state.extend_from_slice(&u16::try_from(count).unwrap_or(0).to_be_bytes());
}

fn write_text(state: &mut Vec<u8>, text: Option<&str>) {
    let text = text.unwrap_or_default().as_bytes();
    let length = u8::try_from(text.len()).unwrap_or(0);
    state.push(length);
    state.extend_from_slice(&text[..usize::from(length)]);
}

fn write_link(state: &mut Vec<u8>, link: Option<Link>) {
    match link {
        None => state.push(0),
        Some(Link::Address(address)) => {
            match address.ip() {
                IpAddr::V4(ip) => {
                    state.push(1);
                    state.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    state.push(2);
                    state.extend_from_slice(&ip.octets());
                }
            }
            state.extend_from_slice(&address.port().to_be_bytes());
        }
        Some(Link::Session(session)) => {
            state.push(3);
            state.extend_from_slice(&session.to_be_bytes());
        }
    }
}

fn write_links(state: &mut Vec<u8>, links: &Links) {
    state.push(links.formats);
    write_text(state, links.root.as_deref());
    write_count(state, links.places.len());
    for (object, instance) in &links.places {
        state.extend_from_slice(&object.to_be_bytes());
        state.extend_from_slice(&instance.to_be_bytes());
    }
    write_count(state, links.versions.len());
    for (object, major, minor) in &links.versions {
        state.extend_from_slice(&object.to_be_bytes());
        state.extend_from_slice(&[*major, *minor]);
    }
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Result<Restored, StateError> {
    let mut reader = Reader { bytes, at: 0 };
    match reader.u8()? {
        VERSION => {}
        other => return Err(StateError::Version(other)),
    }
    let restored = reader.registration()?;
    if reader.at != bytes.len() {
        return Err(reader.damaged());
    }
    Ok(restored)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn damaged(&self) -> StateError {
        StateError::Damaged(self.at)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let found = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk());
        let array = *found.ok_or_else(|| self.damaged())?;
        self.at += N;
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, StateError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, StateError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_be_bytes)
    }

    fn time(&mut self) -> Result<Timestamp, StateError> {
        self.array().map(i64::from_be_bytes).map(Timestamp::from_micros)
    }

    /// A list, whose room is never taken from its length alone.
    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, StateError>,
    ) -> Result<Box<[T]>, StateError> {
        (0..self.u16()?).map(|_| item(self)).collect()
    }

    fn text(&mut self) -> Result<Option<Box<str>>, StateError> {
        let length = usize::from(self.u8()?);
        let text = self.bytes.get(self.at..self.at + length).map(std::str::from_utf8);
        let Some(Ok(text)) = text else { return Err(self.damaged()) };
        self.at += length;
        Ok((!text.is_empty()).then(|| text.into()))
    }

    fn registration(&mut self) -> Result<Restored, StateError> {
        let id = RegistrationId(self.array()?);
        let version = match self.u8()? {
            0 => Version::V1_0,
            1 => Version::V1_1,
            _ => return Err(self.damaged()),
        };
        let bits = self.u8()?;
        let binding = Binding::from_bits(bits).ok_or_else(|| self.damaged())?;
        let security = match self.u8()? {
            0 => Security::NoSec,
            1 => Security::BootstrapKey,
            2 => Security::ServerKey,
            _ => return Err(self.damaged()),
        };
        let lifetime_seconds = self.array().map(u32::from_be_bytes)?;
        let (registered_at, updated_at, expires_at) = (self.time()?, self.time()?, self.time()?);
        let link = self.link()?;
        let registration = Registration {
            id,
            version,
            binding,
            lifetime_seconds,
            security,
            sms: self.text()?,
            links: self.links()?,
            registered_at,
            updated_at,
            expires_at,
            contact: None,
            observations: self.list(Self::observation)?.into_vec(),
        };
        Ok(Restored { registration, link })
    }

    fn link(&mut self) -> Result<Option<Link>, StateError> {
        let ip: IpAddr = match self.u8()? {
            0 => return Ok(None),
            1 => self.array::<4>()?.into(),
            2 => self.array::<16>()?.into(),
            3 => return Ok(Some(Link::Session(self.u64()?))),
            _ => return Err(self.damaged()),
        };
        Ok(Some(Link::Address(SocketAddr::new(ip, self.u16()?))))
    }

    fn links(&mut self) -> Result<Links, StateError> {
        Ok(Links {
            formats: self.u8()?,
            root: self.text()?,
            places: self.list(|reader| Ok((reader.u16()?, reader.u16()?)))?,
            versions: self.list(|reader| Ok((reader.u16()?, reader.u8()?, reader.u8()?)))?,
        })
    }

    fn observation(&mut self) -> Result<Observation, StateError> {
        let token = self.u64()?;
        let composite = match self.u8()? {
            0 => false,
            1 => true,
            _ => return Err(self.damaged()),
        };
        let format = Some(self.u16()?).filter(|format| *format != NO_FORMAT).map(ContentFormat);
        let paths = self.list(Self::path)?;
        Ok(Observation { token, paths, composite, format })
    }

    fn path(&mut self) -> Result<Path, StateError> {
        let mut path = Path::ROOT;
        for _ in 0..self.u8()? {
            let id = self.u16()?;
            path = path.child(id).ok_or_else(|| self.damaged())?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Registration {
        let links = Links {
            places: [(1, 0), (3, 0), (3303, 0), (3303, 1), (10_000, u16::MAX)].into(),
            versions: [(3, 1, 1)].into(),
            root: Some("/lwm2m".into()),
            formats: 5,
        };
        Registration {
            id: RegistrationId([7; 16]),
            version: Version::V1_1,
            binding: Binding::default(),
            lifetime_seconds: 86_400,
            sms: Some("+49151".into()),
            security: Security::ServerKey,
            links,
            registered_at: Timestamp::from_millis(1_000),
            updated_at: Timestamp::from_millis(2_000),
            expires_at: Timestamp::from_millis(90_000_000),
            contact: None,
            observations: vec![
                Observation {
                    token: 9,
                    paths: [Path::resource(3303, 0, 5700)].into(),
                    composite: false,
                    format: Some(ContentFormat::LWM2M_TLV),
                },
                Observation {
                    token: 10,
                    paths: [Path::object(3), Path::resource_instance(3, 0, 7, 1)].into(),
                    composite: true,
                    format: None,
                },
            ],
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let links = [
            None,
            Some(Link::Address("192.0.2.1:5683".parse().unwrap())),
            Some(Link::Address("[2001:db8::1]:5683".parse().unwrap())),
            Some(Link::Session(77)),
        ];
        for link in links {
            let sample = sample();
            let state = encode(&sample, link, sample.observations.iter());
            assert!(state.len() <= 200, "{} bytes", state.len());
            let restored = decode(&state).unwrap();
            assert_eq!((restored.registration, restored.link), (sample, link));
        }
    }

    #[test]
    fn every_cut_and_every_addition_is_noticed() {
        let sample = sample();
        let mut state = encode(&sample, Some(Link::Session(1)), sample.observations.iter());
        for length in 1..state.len() {
            let error = decode(&state[..length]).err();
            assert!(matches!(error, Some(StateError::Damaged(_))), "{length}");
        }
        state.push(0);
        assert_eq!(decode(&state).err(), Some(StateError::Damaged(state.len() - 1)));
        state[0] = 2;
        assert_eq!(decode(&state).err(), Some(StateError::Version(2)));
        assert_eq!(decode(&[]).err(), Some(StateError::Damaged(0)));
    }
}
