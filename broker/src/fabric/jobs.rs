//! Work for a pool of threads: whoever is free takes the oldest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A queue of jobs. It takes whatever comes; that it stays bounded is the senders' duty, as with
/// a [`Mailbox`](super::Mailbox).
pub struct Jobs<T> {
    waiting: Mutex<VecDeque<T>>,
    arrived: Condvar,
    count: AtomicUsize,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Jobs {
            waiting: Mutex::new(VecDeque::new()),
            arrived: Condvar::new(),
            count: AtomicUsize::new(0),
        }
    }
}

impl<T> Jobs<T> {
    /// Jobs that wait.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a batch and leaves it empty.
    pub fn put_all(&self, batch: &mut Vec<T>) {
        if batch.is_empty() {
            return;
        }
        let many = batch.len() > 1;
        let mut waiting = self.waiting.lock();
        waiting.extend(batch.drain(..));
        self.count.store(waiting.len(), Ordering::Relaxed);
        drop(waiting);
        if many {
            self.arrived.notify_all();
        } else {
            self.arrived.notify_one();
        }
    }

    /// Takes the oldest job, sleeping until there is one or the time is over.
    pub fn take(&self, timeout: Duration) -> Option<T> {
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            self.arrived.wait_for(&mut waiting, timeout);
        }
        let job = waiting.pop_front();
        self.count.store(waiting.len(), Ordering::Relaxed);
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_job_is_taken_first() {
        let jobs = Jobs::default();
        jobs.put_all(&mut vec![1, 2]);
        assert_eq!(jobs.len(), 2);
        assert_eq!(jobs.take(Duration::ZERO), Some(1));
        assert_eq!(jobs.take(Duration::ZERO), Some(2));
        assert_eq!(jobs.take(Duration::ZERO), None);
        assert!(jobs.is_empty());
    }
}
