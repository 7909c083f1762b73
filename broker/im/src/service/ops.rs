//! The operations of the services and their request bodies (im-services).

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::user::token::Minted;

/// One operation with its request.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is an operation of the table in the manual")]
pub enum Op {
    TimeNow(Nothing),
    UserInfo(UserInfo),
    UserSet(UserSet),
    SyncHeads(SyncHeads),
    SyncPull(SyncPull),
    SyncCounts(Nothing),
    ConvList(Page),
    ConvPin(ConvSwitch),
    ConvMute(ConvMute),
    ConvHide(ConvSwitch),
    ConvClear(OneConv),
    RosterList(Page),
    RosterRequest(RosterUser),
    RosterAccept(RosterUser),
    RosterReject(RosterUser),
    RosterRemove(RosterUser),
    RosterBlock(RosterUser),
    RosterUnblock(RosterUser),
    RosterTag(RosterTag),
    RosterNote(RosterNote),
    GroupCreate(GroupCreate),
    GroupInfo(OneGroup),
    GroupList(Page),
    GroupJoin(GroupJoin),
    GroupApply(GroupJoin),
    GroupApprove(GroupUser),
    GroupReject(GroupUser),
    GroupInvite(GroupUsers),
    GroupKick(GroupUsers),
    GroupLeave(OneGroup),
    GroupDissolve(OneGroup),
    GroupRole(GroupRole),
    GroupTransfer(GroupUser),
    GroupMute(GroupMute),
    GroupUnmute(GroupMute),
    GroupSet(GroupSet),
    GroupMembers(GroupMembers),
    ChannelCreate(ChannelCreate),
    ChannelFollow(OneChannel),
    ChannelUnfollow(OneChannel),
    ChannelInfo(OneChannel),
    ChannelPublishers(ChannelPublishers),
    RoomCreate(RoomCreate),
    RoomInfo(OneRoom),
    RoomClose(OneRoom),
    RoomMute(RoomUser),
    RoomUnmute(RoomUser),
    RoomBan(RoomUser),
    RoomUnban(RoomUser),
    RoomMembers(RoomMembers),
    RoomInvite(RoomUsers),
    RoomRole(RoomRole),
    PresenceWatch(Users),
    PresenceUnwatch(Users),
    PresenceGet(Users),
    ReceiptList(Receipt),
    ReceiptCount(Receipt),
    DeviceList(Nothing),
    DeviceKick(DeviceKick),
    DevicePushToken(PushToken),
    TokensCreate(TokensCreate),
    TokensList(Nothing),
    TokensRevoke(TokensRevoke),
}

impl Op {
    /// Whether it changes rows: then the owning shard carries it out.
    pub fn writes(&self) -> bool {
        !matches!(
            self,
            Op::TimeNow(_)
                | Op::UserInfo(_)
                | Op::SyncHeads(_)
                | Op::SyncPull(_)
                | Op::SyncCounts(_)
                | Op::ConvList(_)
                | Op::RosterList(_)
                | Op::GroupInfo(_)
                | Op::GroupList(_)
                | Op::GroupMembers(_)
                | Op::ChannelInfo(_)
                | Op::ReceiptList(_)
                | Op::ReceiptCount(_)
                | Op::TokensList(_)
        )
    }
}

impl Op {
    /// Users it names, each of whom has to be told of it.
    pub fn users_named(&self) -> usize {
        match self {
            Op::GroupCreate(of) => of.members.len(),
            Op::GroupInvite(of) | Op::GroupKick(of) => of.users.len(),
            Op::ChannelCreate(of) => of.publishers.len(),
            Op::ChannelPublishers(of) => of.add.len() + of.remove.len(),
            Op::RoomInvite(of) => of.users.len(),
            Op::PresenceWatch(of) | Op::PresenceUnwatch(of) | Op::PresenceGet(of) => of.users.len(),
            _ => 0,
        }
    }
}

/// `null` and a missing field are the same.
fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

macro_rules! request {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    };
}

request! {
    /// `{}`
    Nothing {}
}
request! {
    /// A page of a list.
    Page {
        /// Items at most.
        #[serde(default, deserialize_with = "some")]
        limit: Option<u32>,
        /// Where the page before ended.
        #[serde(default, deserialize_with = "some")]
        next: Option<String>,
    }
}
request! {
    /// `user/info`
    UserInfo {
        /// Whose; the caller's without it.
        #[serde(default, deserialize_with = "some")]
        user: Option<String>,
    }
}
request! {
    /// `user/set`
    UserSet {
        /// Name to show.
        #[serde(default, deserialize_with = "some")]
        name: Option<String>,
        /// Address of a picture.
        #[serde(default, deserialize_with = "some")]
        avatar: Option<String>,
        /// Anything, to 4 KiB.
        #[serde(default, deserialize_with = "some")]
        info: Option<Value>,
    }
}
request! {
    /// `sync/heads`
    SyncHeads {
        /// Conversations at most.
        #[serde(default, deserialize_with = "some")]
        limit: Option<u32>,
        /// Where the page before ended.
        #[serde(default, deserialize_with = "some")]
        next: Option<String>,
        /// Only those with unread messages.
        #[serde(default, deserialize_with = "some")]
        unread_only: Option<bool>,
    }
}
request! {
    /// `sync/pull`
    SyncPull {
        /// The conversation.
        conv: String,
        /// The seq where it begins, included: going down, the highest.
        #[serde(default, deserialize_with = "some")]
        from: Option<u64>,
        /// The seq where it ends, included: going down, the lowest.
        #[serde(default, deserialize_with = "some")]
        to: Option<u64>,
        /// Entries at most.
        #[serde(default, deserialize_with = "some")]
        limit: Option<u32>,
        /// Which way.
        #[serde(default, deserialize_with = "some")]
        direction: Option<Direction>,
    }
}

/// Which way a pull goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From low to high.
    #[default]
    Up,
    /// From high to low.
    Down,
}

request! {
    /// `conv/pin`, `conv/hide`
    ConvSwitch {
        /// The conversation.
        conv: String,
        /// On or off.
        on: bool,
    }
}
request! {
    /// `conv/mute`
    ConvMute {
        /// The conversation.
        conv: String,
        /// On or off.
        on: bool,
        /// When it ends, ms since the epoch.
        #[serde(default, deserialize_with = "some")]
        until: Option<u64>,
    }
}
request! {
    /// `conv/clear`
    OneConv {
        /// The conversation.
        conv: String,
    }
}
request! {
    /// Most operations of the roster.
    RosterUser {
        /// The other user.
        user: String,
        /// A word to the other user.
        #[serde(default, deserialize_with = "some")]
        message: Option<String>,
    }
}
request! {
    /// `roster/tag`
    RosterTag {
        /// The other user.
        user: String,
        /// All tags; they replace those before.
        tags: Vec<String>,
    }
}
request! {
    /// `roster/note`
    RosterNote {
        /// The other user.
        user: String,
        /// The note; empty removes it.
        note: String,
    }
}

/// Who may join a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// Anyone.
    Open,
    /// Whoever asked and was let in.
    Ask,
    /// Whoever was invited.
    #[default]
    Invite,
}

/// What new members see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum History {
    /// What came since they joined.
    #[default]
    Joined,
    /// Everything.
    All,
}

request! {
    /// `group/create`
    GroupCreate {
        /// Its id; made by the broker without it.
        #[serde(default, deserialize_with = "some")]
        group: Option<String>,
        /// Its name.
        name: String,
        /// First members besides the owner.
        #[serde(default)]
        members: Vec<String>,
        /// Who may join.
        #[serde(default)]
        join: Join,
        /// What new members see.
        #[serde(default)]
        history: History,
        /// When a temporary group ends, ms since the epoch.
        #[serde(default, deserialize_with = "some")]
        until: Option<u64>,
        /// Anything, to 4 KiB.
        #[serde(default, deserialize_with = "some")]
        info: Option<Value>,
    }
}
request! {
    /// Operations on a group as such.
    OneGroup {
        /// The group.
        group: String,
    }
}
request! {
    /// `group/join`, `group/apply`
    GroupJoin {
        /// The group.
        group: String,
        /// A word to those who decide.
        #[serde(default, deserialize_with = "some")]
        message: Option<String>,
    }
}
request! {
    /// Operations on one user of a group.
    GroupUser {
        /// The group.
        group: String,
        /// The user.
        user: String,
    }
}
request! {
    /// `group/invite`, `group/kick`
    GroupUsers {
        /// The group.
        group: String,
        /// The users.
        users: Vec<String>,
    }
}

/// A role that can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum GivenRole {
    /// May invite, remove, mute and recall.
    Admin,
    /// No rights over others.
    #[default]
    Member,
}

request! {
    /// `group/role`
    GroupRole {
        /// The group.
        group: String,
        /// The member.
        user: String,
        /// The new role.
        role: GivenRole,
    }
}
request! {
    /// `group/mute`, `group/unmute`
    GroupMute {
        /// The group.
        group: String,
        /// The member; everyone but owner and admins without it.
        #[serde(default, deserialize_with = "some")]
        user: Option<String>,
        /// When it ends, ms since the epoch; never without it.
        #[serde(default, deserialize_with = "some")]
        until: Option<u64>,
    }
}
request! {
    /// `group/set`
    GroupSet {
        /// The group.
        group: String,
        /// New name.
        #[serde(default, deserialize_with = "some")]
        name: Option<String>,
        /// Who may join.
        #[serde(default, deserialize_with = "some")]
        join: Option<Join>,
        /// What new members see.
        #[serde(default, deserialize_with = "some")]
        history: Option<History>,
        /// Anything, to 4 KiB.
        #[serde(default, deserialize_with = "some")]
        info: Option<Value>,
    }
}
request! {
    /// `group/members`
    GroupMembers {
        /// The group.
        group: String,
        /// Members at most.
        #[serde(default, deserialize_with = "some")]
        limit: Option<u32>,
        /// Where the page before ended.
        #[serde(default, deserialize_with = "some")]
        next: Option<String>,
    }
}
request! {
    /// `channel/create`
    ChannelCreate {
        /// Its id; made by the broker without it.
        #[serde(default, deserialize_with = "some")]
        channel: Option<String>,
        /// Its name.
        name: String,
        /// Publishers besides the owner.
        #[serde(default)]
        publishers: Vec<String>,
        /// All users get it, without following (ruling 38).
        #[serde(default)]
        everyone: bool,
    }
}
request! {
    /// Operations on a channel as such.
    OneChannel {
        /// The channel.
        channel: String,
    }
}
request! {
    /// `channel/publishers`
    ChannelPublishers {
        /// The channel.
        channel: String,
        /// Who becomes one.
        #[serde(default)]
        add: Vec<String>,
        /// Who is one no more.
        #[serde(default)]
        remove: Vec<String>,
    }
}

/// Who may enter a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ticket {
    /// Anyone.
    #[default]
    Open,
    /// Whoever was invited.
    Invite,
}

request! {
    /// `room/create`
    RoomCreate {
        /// Its id; made by the broker without it.
        #[serde(default, deserialize_with = "some")]
        room: Option<String>,
        /// Its name.
        #[serde(default, deserialize_with = "some")]
        name: Option<String>,
        /// Who may enter.
        #[serde(default)]
        ticket: Ticket,
    }
}
request! {
    /// Operations on a room as such.
    OneRoom {
        /// The room.
        room: String,
    }
}
request! {
    /// `room/mute`, `room/ban`, `room/unban`
    RoomUser {
        /// The room.
        room: String,
        /// The user; everyone without it, where that has a meaning.
        #[serde(default, deserialize_with = "some")]
        user: Option<String>,
        /// When it ends, ms since the epoch; never without it.
        #[serde(default, deserialize_with = "some")]
        until: Option<u64>,
    }
}
request! {
    /// `room/invite`
    RoomUsers {
        /// The room.
        room: String,
        /// The users.
        users: Vec<String>,
    }
}

/// What a user is in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum RoomRank {
    /// May mute, ban, invite and close.
    Moderator,
    /// No rights over others.
    #[default]
    Member,
}

request! {
    /// `room/role`
    RoomRole {
        /// The room.
        room: String,
        /// The user.
        user: String,
        /// The new rank.
        role: RoomRank,
    }
}
request! {
    /// `room/members`
    RoomMembers {
        /// The room.
        room: String,
        /// Size of the sample.
        #[serde(default, deserialize_with = "some")]
        limit: Option<u32>,
    }
}
request! {
    /// A list of users.
    Users {
        /// The users.
        users: Vec<String>,
    }
}
request! {
    /// `receipt/list`, `receipt/count`
    Receipt {
        /// The conversation.
        conv: String,
        /// The message.
        seq: u64,
    }
}
request! {
    /// `device/kick`
    DeviceKick {
        /// The device's client id.
        device: String,
    }
}
request! {
    /// `device/push-token`
    PushToken {
        /// The push service.
        provider: String,
        /// The token there; empty removes it.
        token: String,
    }
}
request! {
    /// `tokens/create`
    TokensCreate {
        /// Seconds until it expires.
        #[serde(default, deserialize_with = "some")]
        ttl: Option<u64>,
        /// Only for this client id.
        #[serde(default, deserialize_with = "some")]
        device: Option<String>,
        /// The token that was drawn for it; never part of a request.
        #[serde(skip)]
        minted: Option<Minted>,
    }
}
request! {
    /// `tokens/revoke`
    TokensRevoke {
        /// The token's id.
        id: String,
    }
}
