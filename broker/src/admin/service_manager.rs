//! Word to the service manager, as systemd understands it. Without one, nothing happens.
//!
//! `Type=notify` waits for [`notify_ready`], `WatchdogSec=` for the pings of [`watch`]. Owns
//! nothing: where to send is in the environment. That a message could not be sent is logged and
//! does not stop the broker.

use std::pin::pin;
use std::time::Duration;

use sd_notify::NotifyState;

/// The broker serves clients; `status` is a line for `systemctl status`.
pub fn notify_ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The broker reads its settings again; [`notify_ready`] ends it.
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "no monotonic clock for the service manager"),
    }
}

/// The broker is about to end.
pub fn notify_stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("telling clients, writing what is left")]);
}

/// A line for `systemctl status`.
pub fn notify_status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// How often [`watch`] should ping: twice in the time the service manager waits. `None` when it
/// does not watch this process.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2).filter(|half| !half.is_zero())
}

/// Tells the service manager every `interval` that the broker lives, as long as `alive` says so,
/// until `shutdown` is ready. A broker that is not alive is not pinged for, and gets restarted.
pub async fn watch(
    interval: Duration,
    alive: impl Fn() -> bool,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let mut rounds = tokio::time::interval(interval);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            _ = rounds.tick() => {}
        }
        if alive() {
            send(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("a thread does not answer: the service manager gets no sign of life");
        }
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;

    const SPEAKER: &str = "HOOPOE_TEST_SPEAKS";

    /// The environment of a process cannot be changed safely while its threads run, so the test
    /// starts itself again in a process that has a service manager.
    #[test]
    fn the_service_manager_hears_the_whole_life() {
        if std::env::var_os(SPEAKER).is_some() {
            speak();
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let (_, name) = module_path!().split_once("::").unwrap();
        let name = format!("{name}::the_service_manager_hears_the_whole_life");
        let speaker = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(SPEAKER, "1")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "40000000")
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap();
        assert!(speaker.status.success(), "{speaker:?}");
        manager.set_nonblocking(true).unwrap();
        let mut heard = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(count) = manager.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
        let [ready, ping, reloading, status, stopping] = heard.as_slice() else {
            panic!("{heard:?}")
        };
        assert_eq!(ready, "READY=1\nSTATUS=serving\n");
        assert_eq!(ping, "WATCHDOG=1\n");
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(status, "STATUS=1 listener open\n");
        assert!(stopping.starts_with("STOPPING=1\nSTATUS="), "{stopping}");
    }

    fn speak() {
        notify_ready("serving");
        let interval = watchdog_interval().unwrap();
        assert_eq!(interval, Duration::from_secs(20));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (asked, was_asked) = tokio::sync::oneshot::channel();
        let asked = std::cell::Cell::new(Some(asked));
        let alive = || {
            let first = asked.take();
            first.is_some_and(|asked| asked.send(()).is_ok())
        };
        runtime.block_on(watch(interval, alive, async {
            let _ = was_asked.await;
        }));
        notify_reloading();
        notify_status("1 listener open");
        notify_stopping();
    }
}
