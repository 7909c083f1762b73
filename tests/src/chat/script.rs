//! What devices do next. The seed decides, by what is known of the conversations.

use super::cast::{Cast, Conv};
use super::entry::Kind;
use super::event::{Deed, What};
use super::judge::Judge;
use crate::Version;
use crate::crash::random::Random;

/// The calls that make groups and channels, each by a device of the owner.
pub fn creations(cast: &Cast) -> Vec<Deed> {
    let groups = cast.convs.iter().enumerate();
    let groups = groups.filter_map(|(conv, of)| Some((conv, of.owner()?)));
    let creation = |(conv, owner)| {
        let device = cast.devices_of(owner).next()?;
        Some(Deed { device, conv, what: What::Create, cid: false, qos: 1 })
    };
    groups.filter_map(creation).collect()
}

/// Each user asks for its list.
pub fn lists(cast: &Cast) -> Vec<Deed> {
    let ask = |device| Deed { device, conv: 0, what: What::Heads, cid: false, qos: 1 };
    (0..cast.users.len()).filter_map(|user| cast.devices_of(user).next()).map(ask).collect()
}

/// Each user asks for all entries of the conversations in its list.
pub fn pulls(judge: &Judge) -> Vec<Deed> {
    let mut deeds = Vec::new();
    for user in 0..judge.cast.users.len() {
        let Some(device) = judge.cast.devices_of(user).next() else { continue };
        let pull = |conv| Deed { device, conv, what: What::Pull(1), cid: false, qos: 1 };
        deeds.extend(judge.listed(user).into_iter().map(pull));
    }
    deeds
}

/// The rest of a pull that was answered in part.
pub fn continuation(deed: Deed, next: u64) -> Deed {
    Deed { what: What::Pull(next), ..deed }
}

/// What a device does next, and how large its body is; nothing when it has nothing to do.
pub fn next(random: &mut Random, judge: &Judge, device: usize) -> Option<(Deed, usize)> {
    let cast = &judge.cast;
    let user = cast.devices[device].user;
    let convs: Vec<usize> =
        (0..cast.convs.len()).filter(|conv| cast.wire(*conv, user).is_some()).collect();
    let conv = *random.pick(&convs);
    let head = judge.logs[conv].head();
    if matches!(cast.convs[conv], Conv::Group { .. }) && head == 0 {
        return None;
    }
    let is_channel = matches!(cast.convs[conv], Conv::Channel { .. });
    if is_channel && !cast.convs[conv].is_publisher(user) && random.chance(70) {
        // Mostly they read, and now and then try what is not theirs to do.
        let what = if random.chance(70) { What::Join } else { What::Leave };
        return Some((Deed { device, conv, what, cid: false, qos: 1 }, 0));
    }
    let v5 = cast.devices[device].version == Version::V5;
    let what = match random.below(100) {
        0..50 => What::Send,
        50..55 if v5 => What::Fleeting(random.between(1, 4) as u32),
        55..60 if cast.peer(conv, user).is_some() => What::Burning(random.between(1, 4) as u32),
        60..72 if head > 0 => What::Read(random.between(1, head as usize) as u64),
        72..88 if head > 0 => operation(random, judge, conv, user)?,
        88..94 => relation(random, cast, conv, user),
        94 if head > 0 => What::Clear,
        95 if head > 0 => What::Hide(random.chance(75)),
        96 if head > 0 => What::Pull(1),
        97 => What::Heads,
        _ => What::Send,
    };
    let is_entry = matches!(what, What::Recall(_) | What::Edit(_) | What::React(_));
    let cid = match what {
        send if send.is_send() => random.chance(80),
        _ => is_entry && v5 && random.chance(50),
    };
    let qos = if what.is_call() || random.chance(80) { 1 } else { 2 };
    let filler = match random.below(50) {
        0 => 3_000,
        1..=10 => random.below(300),
        _ => 0,
    };
    Some((Deed { device, conv, what, cid, qos }, filler))
}

/// Something about one of the last messages.
fn operation(random: &mut Random, judge: &Judge, conv: usize, user: usize) -> Option<What> {
    let (log, cast) = (&judge.logs[conv], &judge.cast);
    let own = |from: Option<&String>| from == Some(&cast.users[user]);
    let lately = log.facts.iter().rev().take(30);
    let messages = lately.filter(|(_, fact)| fact.kind == Some(Kind::Message) && !fact.void);
    let mine: Vec<u64> =
        messages.clone().filter(|(_, fact)| own(fact.from.as_ref())).map(|(seq, _)| *seq).collect();
    let all: Vec<u64> = messages.map(|(seq, _)| *seq).collect();
    // Channels merge reactions: nothing is promised of each.
    let is_channel = matches!(cast.convs[conv], Conv::Channel { .. });
    match random.below(3) {
        0 if !mine.is_empty() => Some(What::Edit(*random.pick(&mine))),
        // Not always one's own: owners may, others are refused.
        1 if !all.is_empty() && random.chance(30) => Some(What::Recall(*random.pick(&all))),
        0 | 1 if !mine.is_empty() => Some(What::Recall(*random.pick(&mine))),
        _ if !all.is_empty() && !is_channel => Some(What::React(*random.pick(&all))),
        _ => None,
    }
}

/// Something about who may talk to whom.
fn relation(random: &mut Random, cast: &Cast, conv: usize, user: usize) -> What {
    match &cast.convs[conv] {
        Conv::Pair(..) => {
            if random.chance(40) {
                What::Block
            } else {
                What::Unblock
            }
        }
        Conv::Notes(_) | Conv::Channel { .. } => What::Send,
        Conv::Group { owner, .. } => {
            let others: Vec<usize> = (0..cast.users.len()).filter(|u| u != owner).collect();
            let other = *random.pick(&others);
            match random.below(4) {
                0 if user == *owner => What::Kick(other),
                _ if user == *owner => What::Invite(other),
                0 => What::Leave,
                1 => What::Invite(other),
                _ => What::Join,
            }
        }
    }
}
