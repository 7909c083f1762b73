//! The IM profile: who may be a user, and what the im/ tree means.
