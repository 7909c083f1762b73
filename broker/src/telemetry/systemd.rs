//! Word to the service manager, in systemd's protocol. Without a service manager nothing happens.
//!
//! `Type=notify` waits for [`ready`], `WatchdogSec=` for the pings of [`watchdog`]. Owns nothing:
//! where to send is in the environment. That a message could not be sent is logged and does not
//! stop the broker.

use std::time::Duration;

use sd_notify::NotifyState;

/// The broker serves clients, or has read its settings again after [`reloading`].
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The broker reads its settings again; [`ready`] has to follow.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "no monotonic clock for the service manager"),
    }
}

/// The broker is about to end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// A line for `systemctl status`.
pub fn status(line: &str) {
    send(&[NotifyState::Status(line)]);
}

/// Tells the service manager that the broker lives, twice in the time it waits, until aborted.
/// Ends at once when it does not watch this process.
///
/// This says that the control thread runs. Threads that fail end the process themselves.
pub async fn watchdog() {
    let Some(interval) = ping_interval(sd_notify::watchdog_enabled()) else { return };
    loop {
        send(&[NotifyState::Watchdog]);
        tokio::time::sleep(interval).await;
    }
}

fn ping_interval(patience: Option<Duration>) -> Option<Duration> {
    patience.map(|patience| patience / 2).filter(|half| !half.is_zero())
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
            .env("WATCHDOG_USEC", "72000000000")
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
        let [ready, ping, reloading, ready_again, status, stopping] = heard.as_slice() else {
            panic!("{heard:?}")
        };
        assert_eq!(ready, "READY=1\n");
        assert_eq!(ping, "WATCHDOG=1\n");
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(ready_again, "READY=1\n");
        assert_eq!(status, "STATUS=1 listener open\n");
        assert_eq!(stopping, "STOPPING=1\n");
    }

    fn speak() {
        ready();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            // The first ping leaves at once, the next one in ten hours.
            tokio::select! {
                biased;
                () = watchdog() => panic!("it ended by itself"),
                () = tokio::task::yield_now() => {}
            }
        });
        reloading();
        ready();
        status("1 listener open");
        stopping();
    }

    #[test]
    fn pings_come_twice_in_the_time_there_is() {
        let micros = Duration::from_micros;
        assert_eq!(ping_interval(Some(micros(3_000_000))), Some(micros(1_500_000)));
        assert_eq!(ping_interval(Some(Duration::from_nanos(1))), None);
        assert_eq!(ping_interval(None), None);
    }
}
