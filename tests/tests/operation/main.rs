//! Running the broker: who is let in, what is bounded, what operators see, how it starts and stops.
//! Each test has a broker of its own settings.

mod login;
mod overload;
mod report;
mod start;
mod transport;
