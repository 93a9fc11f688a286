//! Reading rows of a segment in order, past whatever is damaged.

use std::ops::{ControlFlow, Range};

use rusqlite::Connection;

use crate::catalog::ReadFault;
use crate::chain::Chain;
use crate::row::{self, Header};
use crate::segment::{self, SELECT_ROW};

/// In which direction a segment is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Oldest first.
    Rising,
    /// Newest first.
    Falling,
}

/// A row that was found; `None` if it is damaged.
pub(crate) type Row<'a> = Option<(Header, &'a [u8])>;

/// Visits each offset of `range` once, in order, until `visit` breaks.
///
/// As long as the rows come without a gap they come from one pass. After the first irregularity
/// each row is looked up on its own, so that one damaged page costs its own rows and no others.
/// An error means that not even the look-up could be prepared.
pub(crate) fn scan(
    connection: &Connection,
    range: Range<u64>,
    direction: Direction,
    visit: &mut dyn FnMut(u64, Row<'_>) -> ControlFlow<()>,
) -> Result<(), ReadFault> {
    let mut left = Left { range, direction };
    match one_pass(connection, &mut left, visit) {
        Ok(ControlFlow::Break(())) => return Ok(()),
        Ok(ControlFlow::Continue(())) => {}
        Err(error) if segment::is_damage(&error) => {}
        Err(error) => return Err(error.into()),
    }
    if left.next().is_none() {
        return Ok(());
    }
    let mut look_up = connection.prepare(SELECT_ROW)?;
    while let Some(offset) = left.next() {
        let flow = with_row(&mut look_up, offset, |row| visit(offset, row))?;
        left.advance();
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

/// Looks one row up; a damaged or missing one is `None`.
pub(crate) fn with_row<T>(
    look_up: &mut rusqlite::Statement<'_>,
    offset: u64,
    visit: impl FnOnce(Row<'_>) -> T,
) -> Result<T, ReadFault> {
    let mut rows = match look_up.query([offset.cast_signed()]) {
        Ok(rows) => rows,
        Err(error) if segment::is_damage(&error) => return Ok(visit(None)),
        Err(error) => return Err(error.into()),
    };
    match rows.next() {
        Ok(Some(row)) => {
            let bytes = row.get_ref(0).ok().and_then(|value| value.as_blob().ok());
            Ok(visit(bytes.and_then(|bytes| row::decode(offset, bytes))))
        }
        Ok(None) => Ok(visit(None)),
        Err(error) if segment::is_damage(&error) => Ok(visit(None)),
        Err(error) => Err(error.into()),
    }
}

/// Reads a range into an index, and counts damaged rows.
pub(crate) fn index(connection: &Connection, range: Range<u64>) -> Result<(Chain, u64), ReadFault> {
    let (mut chain, mut damaged) = (Chain::default(), 0);
    scan(connection, range, Direction::Rising, &mut |_, row| {
        match row {
            Some((header, _)) => chain.push(&header),
            None => {
                chain.push_damaged();
                damaged += 1;
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok((chain, damaged))
}

/// The offsets that a segment's file holds; `None` if it is empty.
pub(crate) fn extent(connection: &Connection) -> rusqlite::Result<Option<Range<u64>>> {
    let of = |sql| connection.query_row(sql, (), |row| row.get::<_, Option<i64>>(0));
    let first = of("SELECT min(offset) FROM records")?;
    let last = of("SELECT max(offset) FROM records")?;
    Ok(first.zip(last).map(|(first, last)| first.cast_unsigned()..last.cast_unsigned() + 1))
}

/// The offsets not visited yet.
struct Left {
    range: Range<u64>,
    direction: Direction,
}

impl Left {
    fn next(&self) -> Option<u64> {
        match self.direction {
            _ if self.range.is_empty() => None,
            Direction::Rising => Some(self.range.start),
            Direction::Falling => Some(self.range.end - 1),
        }
    }

    fn advance(&mut self) {
        match self.direction {
            Direction::Rising => self.range.start += 1,
            Direction::Falling => self.range.end -= 1,
        }
    }
}

fn one_pass(
    connection: &Connection,
    left: &mut Left,
    visit: &mut dyn FnMut(u64, Row<'_>) -> ControlFlow<()>,
) -> rusqlite::Result<ControlFlow<()>> {
    let mut statement = connection.prepare(match left.direction {
        Direction::Rising => {
            "SELECT offset, row FROM records WHERE offset >= ?1 AND offset < ?2 ORDER BY offset"
        }
        Direction::Falling => {
            "SELECT offset, row FROM records WHERE offset >= ?1 AND offset < ?2
             ORDER BY offset DESC"
        }
    })?;
    let bounds = [left.range.start.cast_signed(), left.range.end.cast_signed()];
    let mut rows = statement.query(bounds)?;
    while let Some(row) = rows.next()? {
        let offset = row.get::<_, i64>(0)?.cast_unsigned();
        if left.next() != Some(offset) {
            break;
        }
        let bytes = row.get_ref(1)?.as_blob().ok();
        let flow = visit(offset, bytes.and_then(|bytes| row::decode(offset, bytes)));
        left.advance();
        if flow.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::tests::header;
    use crate::segment::INSERT_ROW;

    fn visited(connection: &Connection, direction: Direction) -> Vec<(u64, bool)> {
        let mut found = Vec::new();
        let mut visit = |offset, row: Row<'_>| {
            found.push((offset, row.is_some()));
            ControlFlow::Continue(())
        };
        scan(connection, 0..6, direction, &mut visit).map_err(|_| ()).unwrap();
        found
    }

    #[test]
    fn missing_and_damaged_rows_are_visited_as_such() {
        let connection = Connection::open_in_memory().unwrap();
        let table = "CREATE TABLE records (offset INTEGER PRIMARY KEY, row BLOB)";
        connection.execute(table, ()).unwrap();
        for offset in [0_u64, 1, 3, 4, 5] {
            let mut row = Vec::new();
            row::encode(&mut row, offset, &header(1, offset + 1, 1, 0), b"x");
            row[20] ^= u8::from(offset == 4);
            connection.execute(INSERT_ROW, (offset.cast_signed(), row)).unwrap();
        }
        let rising = vec![(0, true), (1, true), (2, false), (3, true), (4, false), (5, true)];
        assert_eq!(visited(&connection, Direction::Rising), rising);
        let falling: Vec<_> = rising.into_iter().rev().collect();
        assert_eq!(visited(&connection, Direction::Falling), falling);
        let (chain, damaged) = index(&connection, 0..6).map_err(|_| ()).unwrap();
        assert_eq!((chain.len(), damaged), (6, 2));
        assert_eq!(extent(&connection).unwrap(), Some(0..6));
    }
}
