//! What survives a restart and what survives `kill -9`, each test with a broker of its own.

mod queue;
mod state;
