//! The crash test: many clients, a broker that is killed again and again, and an audit.
//!
//! A run is decided by its seed ([`cast`], [`script`]): publishers with topics of QoS 1 and 2, some
//! retained, and receivers with stored sessions that stay, come and go, are slow, fight for their
//! session, unsubscribe, start anew or expire. In each round they act until the broker is killed
//! with SIGKILL, at a count of acknowledgements or of accepted clients, now and then at rest; then it
//! is started on the same data folder, and now and then killed while it starts. At last everything
//! is drained, the broker is killed once more at rest, and the [`audit`] judges the [`history`] of
//! what the clients sent and saw.
//!
//! All clients live on one thread. What a client does is in [`publisher`] and [`receiver`]; what
//! is right is in the audit alone.

pub mod audit;
pub mod cast;
pub mod chat;
pub mod history;
pub mod links;
pub mod message;
pub mod power;
pub mod publisher;
pub mod random;
pub mod receiver;
pub mod run;
pub mod scene;
pub mod script;
pub mod settings;

pub use run::{Outcome, run};
pub use settings::Settings;
