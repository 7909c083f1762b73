//! What the threads of a run know together: whether the broker runs, how much was done, and whether
//! something was wrong.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::DEADLINE;

/// Shared by the devices and by who kills the broker.
pub struct Stage {
    state: Mutex<State>,
    changed: Condvar,
    /// Publications after which the run is over.
    last: u64,
}

#[derive(Default)]
struct State {
    is_up: bool,
    publications: u64,
    fault: Option<String>,
}

impl Stage {
    /// A broker that runs, and `last` publications to come.
    pub fn new(last: u64) -> Stage {
        let state = State { is_up: true, ..State::default() };
        Stage { state: Mutex::new(state), changed: Condvar::new(), last }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many publications more were made.
    pub fn count(&self, publications: u64) {
        self.lock().publications += publications;
        self.changed.notify_all();
    }

    /// Whether enough was done, or something was wrong.
    pub fn is_over(&self) -> bool {
        let state = self.lock();
        state.publications >= self.last || state.fault.is_some()
    }

    /// Something was wrong: the run is over.
    pub fn fail(&self, fault: String) {
        self.lock().fault.get_or_insert(fault);
        self.changed.notify_all();
    }

    /// What was wrong first.
    pub fn take_fault(&self) -> Option<String> {
        self.lock().fault.take()
    }

    /// The broker runs, or does not.
    pub fn set_up(&self, is_up: bool) {
        self.lock().is_up = is_up;
        self.changed.notify_all();
    }

    /// Waits for a broker that can be connected to.
    pub fn wait_until_up(&self) {
        self.wait(|state| state.is_up || state.fault.is_some());
    }

    /// Waits until so many publications were made; says whether all is well.
    pub fn wait_for(&self, publications: u64) -> bool {
        self.wait(|state| state.publications >= publications || state.fault.is_some());
        self.lock().fault.is_none()
    }

    fn wait(&self, until: impl Fn(&State) -> bool) {
        let mut state = self.lock();
        while !until(&state) {
            let before = state.publications;
            let (next, waited) = self
                .changed
                .wait_timeout(state, DEADLINE * 2)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() && state.publications == before && !until(&state) {
                state.fault.get_or_insert("nothing went on".to_owned());
            }
        }
    }
}

/// Ends the run when the thread that holds it panics.
pub struct Sentinel<'a>(pub &'a Stage);

impl Drop for Sentinel<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("a device's thread has panicked, see above".to_owned());
        }
    }
}
