//! A mailbox: many threads put batches in, one takes everything out.
//!
//! The lock is held for an append or a swap of vectors only. The owner is woken when the mailbox
//! was empty, not per letter. The mailbox itself takes whatever comes; that it stays bounded is
//! the senders' duty, who look at [`len`](Mailbox::len) before they take on more work.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

/// How the owner is woken.
type Wake = Box<dyn Fn() + Send + Sync>;

/// Letters for which a mailbox keeps its room, however few there are.
const KEPT_LETTERS: usize = 1024;

/// What a letter weighs.
pub trait Weigh {
    /// Bytes of messages that the letter keeps in memory.
    fn bytes(&self) -> usize;
}

/// Letters for one owner.
pub struct Mailbox<T> {
    letters: Mutex<Vec<T>>,
    arrived: Condvar,
    count: AtomicUsize,
    bytes: AtomicUsize,
    wake: Option<Wake>,
}

impl<T: Weigh> Mailbox<T> {
    /// A mailbox whose owner sleeps in [`wait`](Self::wait).
    pub fn parked() -> Mailbox<T> {
        Mailbox {
            letters: Mutex::new(Vec::new()),
            arrived: Condvar::new(),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            wake: None,
        }
    }

    /// A mailbox whose owner sleeps elsewhere and is woken by `wake`.
    pub fn woken_by(wake: impl Fn() + Send + Sync + 'static) -> Mailbox<T> {
        Mailbox { wake: Some(Box::new(wake)), ..Mailbox::parked() }
    }

    /// Letters that wait.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes of messages that the letters keep in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// True when no letter waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts one letter in.
    pub fn put(&self, letter: T) {
        let bytes = letter.bytes();
        self.put_with(bytes, |letters| letters.push(letter));
    }

    /// Puts a batch in and leaves `batch` empty, its capacity kept.
    pub fn put_all(&self, batch: &mut Vec<T>) {
        if !batch.is_empty() {
            let bytes = batch.iter().map(Weigh::bytes).sum();
            self.put_with(bytes, |letters| letters.append(batch));
        }
    }

    fn put_with(&self, bytes: usize, add: impl FnOnce(&mut Vec<T>)) {
        let was_empty = {
            let mut letters = self.letters.lock();
            let was_empty = letters.is_empty();
            add(&mut letters);
            self.count.store(letters.len(), Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            was_empty
        };
        if was_empty {
            match &self.wake {
                Some(wake) => wake(),
                None => {
                    self.arrived.notify_one();
                }
            }
        }
    }

    /// Takes everything out into `into`, which must be empty; true when there was something.
    pub fn take(&self, into: &mut Vec<T>) -> bool {
        debug_assert!(into.is_empty());
        if self.is_empty() {
            return false;
        }
        let mut letters = self.letters.lock();
        std::mem::swap(&mut *letters, into);
        let room = letters.capacity();
        if room > KEPT_LETTERS && into.len() < room / 8 {
            // Left from a burst: no load that goes on fills it.
            *letters = Vec::new();
        }
        self.count.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        !into.is_empty()
    }

    /// Sleeps until a letter arrives or the time is over.
    pub fn wait(&self, timeout: std::time::Duration) {
        let mut letters = self.letters.lock();
        if letters.is_empty() {
            self.arrived.wait_for(&mut letters, timeout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    impl Weigh for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    #[test]
    fn the_owner_is_woken_once_per_batch() {
        let wakes = Arc::new(AtomicU32::new(0));
        let counter = wakes.clone();
        let mailbox = Mailbox::woken_by(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        mailbox.put(1);
        mailbox.put_all(&mut vec![2, 3]);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert_eq!((mailbox.len(), mailbox.bytes()), (3, 6));
        let mut taken = Vec::new();
        assert!(mailbox.take(&mut taken));
        assert_eq!(taken, [1, 2, 3]);
        assert_eq!((mailbox.len(), mailbox.bytes()), (0, 0));
        mailbox.put(4);
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_room_of_a_burst_is_given_back() {
        let mailbox = Mailbox::parked();
        let mut taken = Vec::new();
        mailbox.put_all(&mut vec![1; 100 * KEPT_LETTERS]);
        assert!(mailbox.take(&mut taken));
        taken.clear();
        for _ in 0..2 {
            mailbox.put(1);
            assert!(mailbox.take(&mut taken));
            assert_eq!(taken, [1]);
            taken.clear();
        }
        let kept = taken.capacity() + mailbox.letters.lock().capacity();
        assert!(kept <= 2 * KEPT_LETTERS, "room for {kept} letters");
    }
}
