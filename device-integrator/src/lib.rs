//! Where devices arrive.
