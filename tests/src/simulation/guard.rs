//! Panics of a run, also those that the broker catches, become the run's fault.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static GUARDED: RefCell<bool> = const { RefCell::new(false) };
}

pub(super) fn take_panic() -> Option<String> {
    PANIC.with_borrow_mut(Option::take)
}

/// Runs `body`; a panic in it, also one that the broker has caught, becomes the run's fault.
pub fn guarded<T>(body: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GUARDED.with_borrow(|guarded| *guarded) {
                PANIC.with_borrow_mut(|panic| *panic = Some(info.to_string()));
            } else {
                default(info);
            }
        }));
    });
    GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    GUARDED.set(false);
    let panic = take_panic();
    match result {
        Ok(result) => result,
        Err(_) => Err(panic.unwrap_or_else(|| "a panic".to_owned())),
    }
}
