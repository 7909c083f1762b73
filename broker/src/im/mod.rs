//! The IM profile at run time.

pub mod rooms;
