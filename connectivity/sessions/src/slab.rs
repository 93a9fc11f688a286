//! Sessions by number. In pieces that never move: a vector of a million sessions would be copied
//! when it grows, and datagrams would wait for it.

use crate::session::Session;

const PIECE: usize = 4_096;

#[derive(Default)]
pub(crate) struct Slab {
    pieces: Vec<Vec<Option<Session>>>,
    free: Vec<u32>,
    len: usize,
}

impl Slab {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, session: Session) -> u32 {
        self.len += 1;
        if let Some(slot) = self.free.pop() {
            if let Some(place) = self.place(slot) {
                *place = Some(session);
            }
            return slot;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let before = (self.pieces.len() - 1) * PIECE;
        let slot = self.pieces.last_mut().map_or(0, |piece| {
            piece.push(Some(session));
            before + piece.len() - 1
        });
        // The configuration allows far fewer than four billion sessions.
        u32::try_from(slot).unwrap_or(u32::MAX)
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Session> {
        let session = self.place(slot)?.take()?;
        self.free.push(slot);
        self.len -= 1;
        Some(session)
    }

    pub(crate) fn find(&self, slot: u32) -> Option<&Session> {
        self.pieces.get(slot as usize / PIECE)?.get(slot as usize % PIECE)?.as_ref()
    }

    pub(crate) fn find_mut(&mut self, slot: u32) -> Option<&mut Session> {
        self.place(slot)?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Session)> {
        let slots = self.pieces.iter().flatten().enumerate();
        slots.filter_map(|(slot, session)| {
            session.as_ref().map(|session| (u32::try_from(slot).unwrap_or(u32::MAX), session))
        })
    }

    fn place(&mut self, slot: u32) -> Option<&mut Option<Session>> {
        self.pieces.get_mut(slot as usize / PIECE)?.get_mut(slot as usize % PIECE)
    }
}
