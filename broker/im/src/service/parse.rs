//! From service name, operation name and body to an [`Op`].

use serde::de::DeserializeOwned;

use super::Op;
use crate::refusal::Refusal;

/// Every operation there is, by service and name.
pub const OPERATIONS: &[(&str, &str)] = &[
    ("time", "now"),
    ("user", "info"),
    ("user", "set"),
    ("sync", "heads"),
    ("sync", "pull"),
    ("sync", "counts"),
    ("conv", "list"),
    ("conv", "pin"),
    ("conv", "mute"),
    ("conv", "hide"),
    ("conv", "clear"),
    ("roster", "list"),
    ("roster", "request"),
    ("roster", "accept"),
    ("roster", "reject"),
    ("roster", "remove"),
    ("roster", "block"),
    ("roster", "unblock"),
    ("roster", "tag"),
    ("roster", "note"),
    ("group", "create"),
    ("group", "info"),
    ("group", "list"),
    ("group", "join"),
    ("group", "apply"),
    ("group", "approve"),
    ("group", "reject"),
    ("group", "invite"),
    ("group", "kick"),
    ("group", "leave"),
    ("group", "dissolve"),
    ("group", "role"),
    ("group", "transfer"),
    ("group", "mute"),
    ("group", "unmute"),
    ("group", "set"),
    ("group", "members"),
    ("channel", "create"),
    ("channel", "follow"),
    ("channel", "unfollow"),
    ("channel", "info"),
    ("channel", "publishers"),
    ("room", "create"),
    ("room", "info"),
    ("room", "close"),
    ("room", "mute"),
    ("room", "unmute"),
    ("room", "ban"),
    ("room", "unban"),
    ("room", "members"),
    ("room", "invite"),
    ("room", "role"),
    ("presence", "watch"),
    ("presence", "unwatch"),
    ("presence", "get"),
    ("receipt", "list"),
    ("receipt", "count"),
    ("device", "list"),
    ("device", "kick"),
    ("device", "push-token"),
    ("tokens", "create"),
    ("tokens", "list"),
    ("tokens", "revoke"),
];

/// Bytes of a request's body.
pub const MOST_BODY_BYTES: usize = 64 * 1024;

/// Reads a request. An empty body stands for `{}`.
///
/// # Errors
/// Names the operation that does not exist, or what is wrong in the body and where.
pub fn parse(service: &str, operation: &str, body: &[u8]) -> Result<Op, Refusal> {
    if body.len() > MOST_BODY_BYTES {
        return Err(Refusal::bad_request(format!("body larger than {MOST_BODY_BYTES} bytes")));
    }
    let op = match (service, operation) {
        ("time", "now") => Op::TimeNow(read(body)?),
        ("user", "info") => Op::UserInfo(read(body)?),
        ("user", "set") => Op::UserSet(read(body)?),
        ("sync", "heads") => Op::SyncHeads(read(body)?),
        ("sync", "pull") => Op::SyncPull(read(body)?),
        ("sync", "counts") => Op::SyncCounts(read(body)?),
        ("conv", "list") => Op::ConvList(read(body)?),
        ("conv", "pin") => Op::ConvPin(read(body)?),
        ("conv", "mute") => Op::ConvMute(read(body)?),
        ("conv", "hide") => Op::ConvHide(read(body)?),
        ("conv", "clear") => Op::ConvClear(read(body)?),
        ("roster", "list") => Op::RosterList(read(body)?),
        ("roster", "request") => Op::RosterRequest(read(body)?),
        ("roster", "accept") => Op::RosterAccept(read(body)?),
        ("roster", "reject") => Op::RosterReject(read(body)?),
        ("roster", "remove") => Op::RosterRemove(read(body)?),
        ("roster", "block") => Op::RosterBlock(read(body)?),
        ("roster", "unblock") => Op::RosterUnblock(read(body)?),
        ("roster", "tag") => Op::RosterTag(read(body)?),
        ("roster", "note") => Op::RosterNote(read(body)?),
        ("group", "create") => Op::GroupCreate(read(body)?),
        ("group", "info") => Op::GroupInfo(read(body)?),
        ("group", "list") => Op::GroupList(read(body)?),
        ("group", "join") => Op::GroupJoin(read(body)?),
        ("group", "apply") => Op::GroupApply(read(body)?),
        ("group", "approve") => Op::GroupApprove(read(body)?),
        ("group", "reject") => Op::GroupReject(read(body)?),
        ("group", "invite") => Op::GroupInvite(read(body)?),
        ("group", "kick") => Op::GroupKick(read(body)?),
        ("group", "leave") => Op::GroupLeave(read(body)?),
        ("group", "dissolve") => Op::GroupDissolve(read(body)?),
        ("group", "role") => Op::GroupRole(read(body)?),
        ("group", "transfer") => Op::GroupTransfer(read(body)?),
        ("group", "mute") => Op::GroupMute(read(body)?),
        ("group", "unmute") => Op::GroupUnmute(read(body)?),
        ("group", "set") => Op::GroupSet(read(body)?),
        ("group", "members") => Op::GroupMembers(read(body)?),
        ("channel", "create") => Op::ChannelCreate(read(body)?),
        ("channel", "follow") => Op::ChannelFollow(read(body)?),
        ("channel", "unfollow") => Op::ChannelUnfollow(read(body)?),
        ("channel", "info") => Op::ChannelInfo(read(body)?),
        ("channel", "publishers") => Op::ChannelPublishers(read(body)?),
        ("room", "create") => Op::RoomCreate(read(body)?),
        ("room", "info") => Op::RoomInfo(read(body)?),
        ("room", "close") => Op::RoomClose(read(body)?),
        ("room", "mute") => Op::RoomMute(read(body)?),
        ("room", "unmute") => Op::RoomUnmute(read(body)?),
        ("room", "ban") => Op::RoomBan(read(body)?),
        ("room", "unban") => Op::RoomUnban(read(body)?),
        ("room", "members") => Op::RoomMembers(read(body)?),
        ("room", "invite") => Op::RoomInvite(read(body)?),
        ("room", "role") => Op::RoomRole(read(body)?),
        ("presence", "watch") => Op::PresenceWatch(read(body)?),
        ("presence", "unwatch") => Op::PresenceUnwatch(read(body)?),
        ("presence", "get") => Op::PresenceGet(read(body)?),
        ("receipt", "list") => Op::ReceiptList(read(body)?),
        ("receipt", "count") => Op::ReceiptCount(read(body)?),
        ("device", "list") => Op::DeviceList(read(body)?),
        ("device", "kick") => Op::DeviceKick(read(body)?),
        ("device", "push-token") => Op::DevicePushToken(read(body)?),
        ("tokens", "create") => Op::TokensCreate(read(body)?),
        ("tokens", "list") => Op::TokensList(read(body)?),
        ("tokens", "revoke") => Op::TokensRevoke(read(body)?),
        _ => {
            return Err(Refusal::not_found(format!("no operation {service}/{operation}")));
        }
    };
    Ok(op)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    // A structure could be read from a list, too: fields without names.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Refusal::bad_request("the body is a list, not an object"));
    }
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Word;

    #[test]
    fn every_operation_reads_a_body_or_says_what_is_missing() {
        for (service, operation) in OPERATIONS {
            match parse(service, operation, b"") {
                Ok(_) => {}
                Err(refusal) => {
                    assert_eq!(refusal.word, Word::BadRequest, "{service}/{operation}");
                    assert!(refusal.message.contains("missing field"), "{}", refusal.message);
                }
            }
            let unknown = parse(service, operation, br#"{"no_such_field":1}"#).unwrap_err();
            assert!(unknown.message.contains("no_such_field"), "{}", unknown.message);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases: [(&str, &str, &[u8], &str); 5] = [
            ("sync", "pull", b"7", "invalid type"),
            ("sync", "pull", br#"{"conv":"u/bob","from":-1}"#, "-1"),
            ("sync", "pull", br#"{"conv":"u/bob","direction":"left"}"#, "left"),
            ("group", "create", br#"{"name":7}"#, "expected a string"),
            ("group", "fly", b"", "group/fly"),
        ];
        for (service, operation, body, names) in cases {
            let refusal = parse(service, operation, body).unwrap_err();
            assert!(refusal.message.contains(names), "{}", refusal.message);
        }
    }
}
