//! How deep and how large a payload may be.

use super::DecodeError;
use crate::limits::{DEPTH_MAX, NODES_MAX};

/// What has been used of the limits.
#[derive(Default)]
pub(super) struct Budget {
    depth: usize,
    nodes: usize,
}

impl Budget {
    /// One more value, array, map or TLV entry.
    pub(super) fn node(&mut self) -> Result<(), DecodeError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(DecodeError::TooManyNodes { nodes: self.nodes });
        }
        Ok(())
    }

    /// Into a container, which is a node too.
    pub(super) fn enter(&mut self) -> Result<(), DecodeError> {
        self.node()?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep { depth: self.depth });
        }
        Ok(())
    }

    /// Out of it again.
    pub(super) fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}
