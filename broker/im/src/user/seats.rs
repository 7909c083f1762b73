//! Which devices of the shard's users are connected, and who may join them: device policy, the
//! loser's waiting time, damping of take-over loops (ruling 36). In memory only: after a restart
//! everybody comes anew.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;
use hoopoe_codec::ReasonCode;
use hoopoe_core::Location;

use crate::command::{Device, User};
use crate::id::DeviceClass;
use crate::settings::{DevicePolicy, ImSettings};

/// How long a loser is refused at first, and at most.
const LOSER_WAIT_MS: u64 = 60_000;
const LOSER_WAIT_MAX_MS: u64 = 600_000;
/// How long after its end a loss still counts as the one before the next.
const LOSS_REMEMBERED_MS: u64 = 3_600_000;
/// Take-overs of one session key within a minute that are let through.
const MOST_TAKE_OVERS: usize = 20;
const TAKE_OVER_WINDOW_MS: u64 = 60_000;
/// Keys whose losses or take-overs are remembered; beyond it the oldest knowledge goes.
const MOST_REMEMBERED: usize = 100_000;

type Key = (User, Arc<str>);

/// A connected device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seat {
    pub(crate) client: Arc<str>,
    pub(crate) location: Location,
    pub(crate) since_ms: u64,
    /// The app is not looked at: for push, the device is absent (ruling 35).
    pub(crate) background: bool,
}

/// Why a session key is refused for a while.
#[derive(Clone, Copy, Debug)]
struct Loss {
    at_ms: u64,
    until_ms: u64,
    wait_ms: u64,
}

/// The connected devices of a shard's users.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    users: HashMap<User, Vec<Seat>>,
    losses: HashMap<Key, Loss>,
    take_overs: HashMap<Key, VecDeque<u64>>,
}

impl Seats {
    /// The connected devices of a user.
    pub(crate) fn of(&self, user: &User) -> &[Seat] {
        self.users.get(user).map_or(&[], Vec::as_slice)
    }

    /// Whether a device of a user is connected.
    pub(crate) fn has(&self, user: &User, client: &str) -> bool {
        self.of(user).iter().any(|seat| *seat.client == *client)
    }

    /// Whether an app of the user is looked at: if not, the user is to be pushed to.
    pub(crate) fn is_attended(&self, user: &User) -> bool {
        self.of(user).iter().any(|seat| !seat.background)
    }

    /// A device went to the background, or is looked at again.
    pub(crate) fn attend(&mut self, user: &User, location: Location, background: bool) {
        let seats = self.users.get_mut(user).map_or(&mut [][..], Vec::as_mut_slice);
        if let Some(seat) = seats.iter_mut().find(|seat| seat.location == location) {
            seat.background = background;
        }
    }

    /// Whether a newcomer may be let in; a device that is connected already takes over its own
    /// session.
    pub(crate) fn admit(
        &mut self,
        now_ms: u64,
        settings: &ImSettings,
        user: &User,
        client: &Arc<str>,
        token_since_ms: u64,
    ) -> Result<(), ReasonCode> {
        let key = (user.clone(), client.clone());
        if let Some(loss) = self.losses.get(&key) {
            // Only while a winner is there, and unless somebody has logged in again since.
            let others = self.of(user).iter().any(|seat| seat.client != *client);
            if others && now_ms < loss.until_ms && token_since_ms <= loss.at_ms {
                return Err(ReasonCode::NotAuthorized);
            }
        }
        if self.of(user).iter().any(|seat| seat.client == *client) {
            return self.take_over(now_ms, key);
        }
        let terms = settings.devices_of(&user.tenant);
        if terms.policy == DevicePolicy::Free && self.of(user).len() >= terms.max {
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(())
    }

    fn take_over(&mut self, now_ms: u64, key: Key) -> Result<(), ReasonCode> {
        forget_some(&mut self.take_overs);
        let times = self.take_overs.entry(key).or_default();
        while times.front().is_some_and(|at| at + TAKE_OVER_WINDOW_MS <= now_ms) {
            times.pop_front();
        }
        // The more there were, the longer it takes until the oldest are forgotten: what is refused
        // counts too, up to twice the number.
        if times.len() < 2 * MOST_TAKE_OVERS {
            times.push_back(now_ms);
        }
        if times.len() > MOST_TAKE_OVERS { Err(ReasonCode::ServerBusy) } else { Ok(()) }
    }

    /// A device is connected. Gives the devices that have to go by the policy.
    pub(crate) fn take(
        &mut self,
        now_ms: u64,
        settings: &ImSettings,
        device: &Device,
    ) -> Vec<Arc<str>> {
        let class = DeviceClass::of(&device.client);
        let seats = self.users.entry(device.user.clone()).or_default();
        seats.retain(|seat| seat.client != device.client);
        let loses = |seat: &Seat| match settings.devices_of(&device.user.tenant).policy {
            DevicePolicy::Free => false,
            DevicePolicy::OnePerClass => DeviceClass::of(&seat.client) == class,
            DevicePolicy::Single => true,
        };
        let losers: Vec<Arc<str>> =
            seats.iter().filter(|seat| loses(seat)).map(|seat| seat.client.clone()).collect();
        let (client, location) = (device.client.clone(), device.location);
        // Most have one device.
        seats.reserve_exact(1);
        seats.push(Seat { client, location, since_ms: now_ms, background: false });
        let won = self.losses.get_mut(&(device.user.clone(), device.client.clone()));
        if let Some(loss) = won {
            // Not refused any more; a loss soon after this one counts as the next.
            loss.until_ms = loss.until_ms.min(now_ms);
        }
        for loser in &losers {
            forget_some(&mut self.losses);
            let key = (device.user.clone(), loser.clone());
            let wait_ms = match self.losses.get(&key) {
                Some(loss) if now_ms < loss.until_ms + LOSS_REMEMBERED_MS => {
                    (loss.wait_ms * 2).min(LOSER_WAIT_MAX_MS)
                }
                _ => LOSER_WAIT_MS,
            };
            let until_ms = now_ms + wait_ms;
            self.losses.insert(key, Loss { at_ms: now_ms, until_ms, wait_ms });
        }
        losers
    }

    /// What was taken over had been silent: a client that finds its way back after its network was
    /// gone is no loop (ruling 36).
    pub(crate) fn was_silent(&mut self, user: &User, client: &Arc<str>) {
        if let Some(times) = self.take_overs.get_mut(&(user.clone(), client.clone())) {
            times.pop_back();
        }
    }

    /// A device is gone, if that connection was still the one that counts.
    pub(crate) fn leave(&mut self, device: &Device) {
        if let Some(seats) = self.users.get_mut(&device.user) {
            seats.retain(|seat| seat.location != device.location);
            if seats.is_empty() {
                self.users.remove(&device.user);
            }
        }
    }
}

/// Bounds what is remembered.
fn forget_some<V>(map: &mut HashMap<Key, V>) {
    if map.len() >= MOST_REMEMBERED {
        map.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(client: &str, place: u32) -> Device {
        Device {
            user: User { tenant: "default".into(), id: "alice".into() },
            client: client.into(),
            location: Location::new(0, 1, place),
            address_class: "loopback",
            stored: true,
            kept: false,
            heads_only: false,
        }
    }

    fn settings(policy: DevicePolicy) -> ImSettings {
        ImSettings { device_policy: policy, devices_max: 2, ..ImSettings::default() }
    }

    #[test]
    fn a_user_is_absent_for_push_when_no_app_is_looked_at() {
        let mut seats = Seats::default();
        let (phone, web) = (device("ios-1", 1), device("web-1", 2));
        assert!(!seats.is_attended(&phone.user));
        for device in [&phone, &web] {
            seats.take(0, &settings(DevicePolicy::Free), device);
        }
        seats.attend(&phone.user, phone.location, true);
        assert!(seats.is_attended(&phone.user), "the other one is");
        seats.attend(&web.user, web.location, true);
        assert!(!seats.is_attended(&phone.user));
        seats.attend(&web.user, web.location, false);
        assert!(seats.is_attended(&phone.user));
        seats.leave(&web);
        assert!(!seats.is_attended(&phone.user));
        // A new connection of the same device is looked at until it says otherwise.
        seats.take(1, &settings(DevicePolicy::Free), &device("ios-1", 3));
        assert!(seats.is_attended(&phone.user));
        seats.attend(&phone.user, phone.location, true);
        assert!(seats.is_attended(&phone.user), "what the old connection says is void");
    }

    #[test]
    fn policies_choose_who_has_to_go() {
        let cases = [
            (DevicePolicy::Free, &[][..]),
            (DevicePolicy::OnePerClass, &["ios-1"][..]),
            (DevicePolicy::Single, &["ios-1", "web-1"][..]),
        ];
        for (policy, losers) in cases {
            let settings = settings(policy);
            let mut seats = Seats::default();
            seats.users.insert(
                device("", 0).user,
                ["ios-1", "web-1"]
                    .iter()
                    .zip(1..)
                    .map(|(client, place)| Seat {
                        client: (*client).into(),
                        location: Location::new(0, 1, place),
                        since_ms: 0,
                        background: false,
                    })
                    .collect(),
            );
            let lost = seats.take(1_000, &settings, &device("ios-2", 3));
            assert_eq!(lost.iter().map(|l| &**l).collect::<Vec<_>>(), losers, "{policy:?}");
        }
    }

    #[test]
    fn a_loser_is_refused_while_the_winner_is_there_for_a_growing_time() {
        let settings = settings(DevicePolicy::Single);
        let mut seats = Seats::default();
        let (a, b) = (device("ios-1", 1), device("ios-2", 2));
        seats.take(0, &settings, &a);
        assert_eq!(seats.take(0, &settings, &b), ["ios-1".into()]);
        seats.leave(&a);
        let refused = Err(ReasonCode::NotAuthorized);
        assert_eq!(seats.admit(59_999, &settings, &a.user, &a.client, 0), refused);
        assert_eq!(seats.admit(60_000, &settings, &a.user, &a.client, 0), Ok(()));
        seats.leave(&b);
        assert_eq!(seats.admit(1, &settings, &a.user, &a.client, 0), Ok(()), "nobody is there");
    }

    #[test]
    fn devices_have_a_maximum_and_take_over_loops_are_damped() {
        let settings = settings(DevicePolicy::Free);
        let mut seats = Seats::default();
        let a = device("ios-1", 1);
        seats.take(0, &settings, &a);
        seats.take(0, &settings, &device("web-1", 2));
        let third: Arc<str> = "pc-1".into();
        assert_eq!(seats.admit(0, &settings, &a.user, &third, 0), Err(ReasonCode::QuotaExceeded));
        for at in 0..20 {
            assert_eq!(seats.admit(at, &settings, &a.user, &a.client, 0), Ok(()), "{at}");
        }
        assert_eq!(seats.admit(20, &settings, &a.user, &a.client, 0), Err(ReasonCode::ServerBusy));
        assert_eq!(seats.admit(70_000, &settings, &a.user, &a.client, 0), Ok(()));
    }

    #[test]
    fn devices_that_push_each_other_out_wait_longer_each_time() {
        let settings = settings(DevicePolicy::Single);
        let mut seats = Seats::default();
        let (a, b) = (device("ios-1", 1), device("ios-2", 2));
        let refused = Err(ReasonCode::NotAuthorized);
        let mut now = 0;
        seats.take(now, &settings, &a);
        for (wait, (winner, loser)) in [60_000, 60_000, 120_000, 120_000, 240_000, 240_000]
            .into_iter()
            .chain([480_000, 480_000, 600_000, 600_000, 600_000])
            .zip([(&b, &a), (&a, &b)].into_iter().cycle())
        {
            assert_eq!(*seats.take(now, &settings, winner), *std::slice::from_ref(&loser.client));
            seats.leave(loser);
            let ask =
                |seats: &mut Seats, at| seats.admit(at, &settings, &loser.user, &loser.client, 0);
            assert_eq!(ask(&mut seats, now + wait - 1), refused, "{wait}");
            assert_eq!(ask(&mut seats, now + wait), Ok(()), "{wait}");
            now += wait;
        }
        // Long after, it is a new story.
        now += LOSS_REMEMBERED_MS;
        seats.take(now, &settings, &b);
        seats.take(now, &settings, &a);
        assert_eq!(seats.admit(now + 60_000, &settings, &b.user, &b.client, 0), Ok(()));
    }

    #[test]
    fn a_loser_with_a_newer_token_is_somebody_who_logged_in_again() {
        let settings = settings(DevicePolicy::Single);
        let mut seats = Seats::default();
        let (a, b) = (device("ios-1", 1), device("ios-2", 2));
        seats.take(0, &settings, &a);
        seats.take(5_000, &settings, &b);
        seats.leave(&a);
        let refused = Err(ReasonCode::NotAuthorized);
        for (token_since_ms, expected) in [(0, refused), (5_000, refused), (5_001, Ok(()))] {
            let asked = seats.admit(6_000, &settings, &a.user, &a.client, token_since_ms);
            assert_eq!(asked, expected, "{token_since_ms}");
        }
    }

    #[test]
    fn taking_over_a_silent_link_is_no_loop() {
        let settings = settings(DevicePolicy::Free);
        let mut seats = Seats::default();
        let a = device("ios-1", 1);
        seats.take(0, &settings, &a);
        for at in 0..100 {
            assert_eq!(seats.admit(at, &settings, &a.user, &a.client, 0), Ok(()), "{at}");
            seats.was_silent(&a.user, &a.client);
        }
    }

    #[test]
    fn a_tenant_may_have_a_policy_of_its_own() {
        let mut settings = settings(DevicePolicy::Free);
        let single = crate::settings::DeviceTerms { policy: DevicePolicy::Single, max: 1 };
        settings.tenant_devices.insert("acme".to_owned(), single);
        for (tenant, losers) in [("default", 0), ("acme", 1)] {
            let mut seats = Seats::default();
            let of = |client: &str, place| {
                let user = User { tenant: tenant.into(), id: "alice".into() };
                Device { user, ..device(client, place) }
            };
            seats.take(0, &settings, &of("ios-1", 1));
            assert_eq!(seats.take(0, &settings, &of("web-1", 2)).len(), losers, "{tenant}");
        }
    }
}
