//! The profile's work on reader threads.

use std::sync::Arc;

use hoopoe_im::Asker;
use hoopoe_im::command::Device;
use hoopoe_im::entry::Entry;
use hoopoe_im::id::{ConvKey, ConvKind, conv_topic, inbox_topic};
use hoopoe_im::refusal::{Fault, Refusal};
use hoopoe_im::rows::may_see;
use hoopoe_im::service::Call;
use hoopoe_im::service::query::Query;
use hoopoe_store::StoreError;
use hoopoe_store::kv::SharedKv;

use super::effects::by_worker_with;
use super::{ImMail, ImRead, Reply};
use crate::connection::Env;
use crate::fabric::Mail;

/// Bytes of entries in one page.
const PAGE_BYTES: usize = 256 * 1024;

/// Carries out one piece of reading.
pub fn read(env: &Env, kv: &SharedKv, now_ms: u64, job: ImRead) {
    let query = Query::new(kv.clone(), now_ms);
    match job {
        ImRead::Login(device) => login(env, &query, &device),
        ImRead::Entries { location, stream, user, conv, from, to } => {
            let page = entries(&query, &user, &conv, from, to);
            let failed = page.is_err();
            let (through, entries) = page.unwrap_or_else(|error| {
                tracing::error!(%error, "a conversation could not be read");
                (from - 1, Vec::new())
            });
            let mail = ImMail::Entries { location, stream, from, through, entries, failed };
            env.fabric.workers[location.worker()].put(Mail::Im(mail));
        }
        ImRead::Call(call) => answer(env, &query, &call),
        ImRead::Listed { user, conv, row, listening } => {
            let head = query.head(&conv).map(|head| head.last).unwrap_or_default();
            let topic = inbox_topic(&user.tenant, &user.id);
            for (worker, receivers) in by_worker_with(env, &[&topic], listening) {
                let (conv, row) = (conv.clone(), row.clone());
                let mail = ImMail::Listed { receivers, conv, row, head };
                env.fabric.workers[worker].put(Mail::Im(mail));
            }
        }
    }
}

/// Entries of a conversation that the user may see now, and how far the page goes.
fn entries(
    query: &Query,
    user: &str,
    conv: &ConvKey,
    from: u64,
    to: u64,
) -> Result<(u64, Vec<Arc<Entry>>), StoreError> {
    let mut found = query.entries(conv, from, to, usize::MAX, PAGE_BYTES, false)?;
    // A page that was cut short by its size ends with its last entry.
    let cut = found.iter().map(|entry| entry.payload.len()).sum::<usize>() > 0;
    let through = match found.last() {
        Some(last) if cut && query.head(conv)?.last > last.seq => last.seq.min(to),
        _ => to,
    };
    let through = match found.first() {
        // Retention has taken all of it: the gap goes up to what is left.
        None => through.max(query.head(conv)?.min - 1),
        Some(_) => through,
    };
    if let Some(intervals) = query.membership(conv, user)? {
        found.retain(|entry| may_see(&intervals, entry.seq));
    }
    Ok((through, found))
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
