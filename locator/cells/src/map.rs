//! A file in memory.

#![allow(unsafe_code, reason = "a file that is mapped could be changed by somebody")]

use std::fs::File;
use std::io;

use memmap2::{Advice, Mmap};

/// Maps a file. Cell databases are replaced as a whole and never changed, so a map holds what the
/// file held when it was opened; who cuts such a file off by hand ends the program by SIGBUS.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: nobody changes the file, see above; bytes that are wrong nevertheless are checked as
    // those of any file.
    let map = unsafe { Mmap::map(file) }?;
    // In pages of 4 KiB a look-up somewhere in a large file waits longer for the address than for
    // what lies there. A system that has no larger ones goes on with those.
    let _ = map.advise(Advice::HugePage);
    Ok(map)
}
