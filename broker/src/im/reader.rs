//! The profile's work on reader threads.

use hoopoe_core::Location;
use hoopoe_im::command::Device;
use hoopoe_im::device::{Read, Start};
use hoopoe_im::id::{ConvKey, ConvKind, conv_topic, inbox_topic};
use hoopoe_im::refusal::{Fault, Refusal};
use hoopoe_im::rows::{UserConv, may_see};
use hoopoe_im::service::Call;
use hoopoe_im::service::query::{Query, Seen};
use hoopoe_im::{Asker, User};
use hoopoe_store::StoreError;
use hoopoe_store::kv::SharedKv;

use super::effects::by_worker_with;
use super::{ImMail, ImRead, Page, Reply};
use crate::connection::Env;
use crate::fabric::Mail;

/// Bytes of entries in one page.
const PAGE_BYTES: usize = 256 * 1024;

/// Carries out one piece of reading.
pub fn read(env: &Env, kv: &SharedKv, now_ms: u64, job: ImRead) {
    let query = Query::new(kv.clone(), now_ms).with_heads(env.im.heads.clone());
    match job {
        ImRead::Login(device) => login(env, &query, &device),
        ImRead::Entries { location, user, reads } => {
            let pages = pages(&query, &user, &reads)
                .inspect_err(|error| tracing::error!(%error, "a conversation could not be read"))
                .ok();
            let mail = ImMail::Entries { location, pages };
            env.fabric.workers[location.worker()].put(Mail::Im(mail));
        }
        ImRead::Call(call) => answer(env, &query, &call),
        ImRead::Listed { user, conv, row, listening } => {
            listed(env, &query, &user, &conv, *row, listening);
        }
    }
}

/// Entries of conversations that the user may see now, of all together about as many bytes as one
/// page may have. What finds no place is asked for again.
fn pages(query: &Query, user: &str, reads: &[Read]) -> Result<Vec<Page>, StoreError> {
    let mut pages = Vec::with_capacity(reads.len());
    for (read, seen) in reads.iter().zip(query.entries_each(reads, PAGE_BYTES)?) {
        let Seen { mut through, mut entries } = seen;
        if entries.is_empty() && through == read.to {
            // Retention has taken all of it: the gap goes up to what is left.
            through = through.max(query.head(&read.conv)?.min - 1);
        }
        if let Some(member) = query.membership(&read.conv, user)? {
            entries.retain(|entry| may_see(&member.intervals, entry.seq));
        }
        pages.push(Page { stream: read.stream, from: read.from, through, entries });
    }
    Ok(pages)
}

/// The device listens to its groups before their heads are read: nothing falls between.
fn login(env: &Env, query: &Query, device: &Device) {
    let location = device.location;
    let listen = |conv: &ConvKey| {
        if conv.kind() != ConvKind::User {
            env.im.reach.insert(&conv_topic(conv), location.to_bits(), location);
        }
    };
    let Device { user, client, kept, heads_only, .. } = device;
    let login = match query.login(user, client, *kept, *heads_only, listen) {
        Ok(login) => Some(Box::new(login)),
        Err(fault) => {
            tracing::error!(?fault, "a user's conversations could not be read");
            None
        }
    };
    let mail = ImMail::Login { location, login };
    env.fabric.workers[location.worker()].put(Mail::Im(mail));
}

/// The devices hear of a conversation in the user's list. They listen to it already, and are looked
/// up before anything is read: nothing falls between.
fn listed(
    env: &Env,
    query: &Query,
    user: &User,
    conv: &ConvKey,
    row: UserConv,
    listening: Vec<Location>,
) {
    let topic = inbox_topic(&user.tenant, &user.id);
    let workers = by_worker_with(env, &[&topic], listening.into());
    if workers.is_empty() {
        return;
    }
    let found = query.head(conv).and_then(|head| Ok((head, query.membership(conv, &user.id)?)));
    let (head, member) = match found {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(%error, "a conversation could not be read for who has just got it");
            // They come again, and find it in their list.
            let reason = hoopoe_codec::ReasonCode::ServerUnavailable;
            for location in workers.iter().flat_map(|(_, receivers)| receivers.iter()) {
                let (worker, location) = (location.worker(), *location);
                env.fabric.workers[worker].put(Mail::TakenOver { location, reason });
            }
            return;
        }
    };
    let mut start = Start::of_listed(conv, row, head.last);
    // Another reader may be about to tell what has become of the membership since.
    if let Some(member) = member {
        (start.intervals, start.version) = (member.intervals, member.version);
    }
    for (worker, receivers) in workers {
        let start = Box::new(start.clone());
        env.fabric.workers[worker].put(Mail::Im(ImMail::Listed { receivers, start }));
    }
}

fn answer(env: &Env, query: &Query, call: &Call) {
    let found = query.answer(call).map_err(|fault| match fault {
        Fault::Refused(refusal) => refusal,
        Fault::Store(error) => {
            tracing::error!(%error, "rows of the IM profile could not be read");
            Refusal::new(hoopoe_im::refusal::Word::Unavailable, "nothing can be read at the moment")
        }
    });
    match call.asker {
        Asker::Nobody => {}
        Asker::Connection(reply) => {
            let mail = ImMail::Found { reply, found: found.map(Box::new) };
            env.fabric.workers[reply.location.worker()].put(Mail::Im(mail));
        }
        Asker::Http(number) => {
            let reply = match found {
                Ok(found) => Reply::Found(Box::new(found)),
                Err(refusal) => Reply::Answer(hoopoe_im::Answer::Refused(refusal)),
            };
            env.im.answer_http(number, reply);
        }
    }
}
