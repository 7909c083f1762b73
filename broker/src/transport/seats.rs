//! Which worker gets the next connection: the one with the fewest, in turn among equals.
//!
//! Owns the number of connections per worker, shared by all listeners. How a connection travels to
//! its worker is the caller's business.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The connections each worker holds.
#[derive(Debug)]
pub struct WorkerSeats {
    taken: Box<[AtomicUsize]>,
    turn: AtomicUsize,
}

/// A connection's place at a worker; dropping it frees the place.
#[derive(Debug)]
pub struct WorkerSeat {
    seats: Arc<WorkerSeats>,
    worker: usize,
}

impl WorkerSeats {
    /// Seats for so many workers, at least one.
    pub fn new(workers: usize) -> Arc<Self> {
        let taken = (0..workers.max(1)).map(|_| AtomicUsize::new(0)).collect();
        Arc::new(WorkerSeats { taken, turn: AtomicUsize::new(0) })
    }

    /// Takes a seat at the worker with the fewest connections. Two listeners that choose in the
    /// same instant may choose the same worker; the next choice evens it out.
    pub fn take(self: &Arc<Self>) -> WorkerSeat {
        let workers = self.taken.len();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % workers;
        let worker = (0..workers)
            .map(|step| (first + step) % workers)
            .min_by_key(|worker| self.taken[*worker].load(Ordering::Relaxed))
            .unwrap_or(first);
        self.taken[worker].fetch_add(1, Ordering::Relaxed);
        WorkerSeat { seats: Arc::clone(self), worker }
    }

    /// The connections of one worker; 0 for a worker that does not exist.
    pub fn taken(&self, worker: usize) -> usize {
        self.taken.get(worker).map_or(0, |taken| taken.load(Ordering::Relaxed))
    }
}

impl WorkerSeat {
    /// The worker's index, from 0.
    pub fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for WorkerSeat {
    fn drop(&mut self) {
        self.seats.taken[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_spread_evenly() {
        let seats = WorkerSeats::new(3);
        let held: Vec<_> = (0..9).map(|_| seats.take()).collect();
        assert_eq!([0, 1, 2].map(|worker| seats.taken(worker)), [3, 3, 3]);
        drop(held);
        assert_eq!([0, 1, 2].map(|worker| seats.taken(worker)), [0, 0, 0]);
    }

    #[test]
    fn a_worker_that_lost_connections_gets_the_next() {
        let seats = WorkerSeats::new(2);
        let mut held: Vec<_> = (0..6).map(|_| seats.take()).collect();
        held.retain(|seat| seat.worker() == 0);
        let next: Vec<_> = (0..3).map(|_| seats.take()).collect();
        assert!(next.iter().all(|seat| seat.worker() == 1));
        assert_eq!(seats.taken(0), seats.taken(1));
    }

    #[test]
    fn no_workers_means_one() {
        assert_eq!(WorkerSeats::new(0).take().worker(), 0);
    }
}
