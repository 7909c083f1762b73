//! Threads for what takes milliseconds of CPU: checking passwords.
//!
//! Bounded in both directions: few threads, so that logins cannot take the CPU from those who are
//! already connected, and a queue with an end, beyond which a login is told to come again later.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

/// One piece of work.
type Job = Box<dyn FnOnce() + Send>;

struct Queue {
    jobs: VecDeque<Job>,
    capacity: usize,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    news: Condvar,
}

/// The threads. They end when the pool is dropped; work that still waits is dropped with it.
pub struct HashPool {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for HashPool {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("HashPool").field("waiting", &self.waiting()).finish()
    }
}

impl HashPool {
    /// A pool whose queue holds up to `capacity` pieces of work beside those being done.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn new(threads: usize, capacity: usize) -> io::Result<HashPool> {
        let queue = Queue { jobs: VecDeque::new(), capacity, closed: false };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), news: Condvar::new() });
        // Dropped on an error, it ends the threads there are.
        let pool = HashPool { shared };
        for index in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let named = thread::Builder::new().name(format!("password-{index}"));
            named.spawn(move || work(&shared))?;
        }
        Ok(pool)
    }

    /// Puts work at the end of the queue. Given back when the queue is full.
    pub(super) fn submit(&self, job: Job) -> Result<(), Job> {
        let mut queue = self.shared.queue.lock();
        if queue.jobs.len() >= queue.capacity {
            return Err(job);
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.news.notify_one();
        Ok(())
    }

    /// How much work waits: for the metrics.
    pub fn waiting(&self) -> usize {
        self.shared.queue.lock().jobs.len()
    }
}

impl Drop for HashPool {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        let dropped = std::mem::take(&mut queue.jobs);
        drop(queue);
        self.shared.news.notify_all();
        // Only now: a job may own something whose end takes the same lock.
        drop(dropped);
    }
}

/// The life of a thread.
fn work(shared: &Shared) {
    loop {
        let mut queue = shared.queue.lock();
        let job = loop {
            if queue.closed {
                return;
            }
            match queue.jobs.pop_front() {
                Some(job) => break job,
                None => shared.news.wait(&mut queue),
            }
        };
        drop(queue);
        // A bug in one login must not end the logins of all.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("the check of a password panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_queue_has_an_end_and_work_goes_on_after_a_panic() {
        let pool = HashPool::new(1, 2).unwrap();
        let (started, has_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let blocker = Box::new(move || {
            started.send(()).unwrap();
            may_go.recv().unwrap();
        });
        assert!(pool.submit(blocker).is_ok());
        has_started.recv().unwrap();

        let (done, is_done) = mpsc::channel();
        assert!(pool.submit(Box::new(|| panic!("a bug"))).is_ok());
        assert!(pool.submit(Box::new(move || done.send(7).unwrap())).is_ok());
        assert!(pool.submit(Box::new(|| ())).is_err(), "full");
        assert_eq!(pool.waiting(), 2);
        go.send(()).unwrap();
        assert_eq!(is_done.recv(), Ok(7));
    }

    #[test]
    fn work_that_waits_is_dropped_with_the_pool() {
        let (sender, receiver) = mpsc::channel::<()>();
        let pool = HashPool::new(0, 1).unwrap();
        assert!(pool.submit(Box::new(move || drop(sender))).is_ok());
        drop(pool);
        assert!(receiver.recv().is_err(), "the sender is gone");
    }
}
