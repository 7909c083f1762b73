//! Every operation of the API: what it does and what it answers. The OpenAPI document is made of
//! this table and of what the requests' own readers say about their fields.

/// Who may call an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Callers {
    /// Users, and operators for them.
    Users,
    /// Service accounts and operators.
    BackEnds,
    /// Operators.
    Operators,
}

/// An operation: `POST /v1/{path}`.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// The path behind `/v1/`.
    pub path: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Fields of the answer.
    pub answer: &'static [&'static str],
    /// Who may.
    pub callers: Callers,
}

const fn op(
    callers: Callers,
    path: &'static str,
    summary: &'static str,
    answer: &'static [&'static str],
) -> Operation {
    Operation { path, summary, answer, callers }
}

const fn user(
    path: &'static str,
    summary: &'static str,
    answer: &'static [&'static str],
) -> Operation {
    op(Callers::Users, path, summary, answer)
}

const fn operator(
    path: &'static str,
    summary: &'static str,
    answer: &'static [&'static str],
) -> Operation {
    op(Callers::Operators, path, summary, answer)
}

const PROFILE: &[&str] = &["user", "name", "avatar", "info"];
const BRIDGE: &[&str] = &[
    "name",
    "url",
    "state",
    "queued",
    "in_flight",
    "lag_ms",
    "connects",
    "failures",
    "counts",
    "last_error",
];
const SITE: &[&str] = &[
    "site",
    "state",
    "since",
    "losses",
    "owed",
    "owed_bytes",
    "held",
    "lag_ms",
    "counts",
    "rates",
    "last_error",
];
const ACCOUNT: &[&str] = &["user", "roles", "disabled", "created", "password"];

/// All of them.
pub const OPERATIONS: &[Operation] = &[
    op(Callers::BackEnds, "messages", "Send a message for a user", &["seq", "id", "ts", "dup"]),
    user("tokens", "Make a token, shown this once", &["id", "token", "expires"]),
    user("time/now", "The broker's clock", &["now"]),
    user("user/info", "A user's profile", PROFILE),
    user("user/set", "Change one's own profile", PROFILE),
    user("sync/heads", "Conversations, newest first", &["conversations", "unread_total", "next"]),
    user(
        "sync/pull",
        "Entries of a conversation",
        &["conv", "entries", "count", "min", "last", "next"],
    ),
    user("sync/counts", "Unread totals", &["unread_total", "mentions_total", "conversations"]),
    user("conv/list", "One's settings of conversations", &["conversations", "next"]),
    user("conv/pin", "Keep a conversation on top", &[]),
    user("conv/mute", "No pushes of a conversation", &[]),
    user("conv/hide", "Not list a conversation until its next message", &[]),
    user("conv/clear", "Show nothing of a conversation up to now", &["read", "min"]),
    user("roster/list", "Friends and requests", &["users", "next"]),
    user("roster/request", "Ask for friendship", &["state"]),
    user("roster/accept", "Accept a request", &["state"]),
    user("roster/reject", "Reject a request", &["state"]),
    user("roster/remove", "End a friendship", &["state"]),
    user("roster/block", "Block a user", &["state"]),
    user("roster/unblock", "Unblock a user", &["state"]),
    user("roster/tag", "Tag a user", &[]),
    user("roster/note", "Note something about a user", &[]),
    user("group/create", "Make a group", &["group", "seq"]),
    user("group/info", "About a group", &["group", "name", "owner", "members", "my_role"]),
    user("group/list", "One's groups", &["groups", "next"]),
    user("group/join", "Join an open group", &["state"]),
    user("group/apply", "Ask to be in a group", &["state"]),
    user("group/approve", "Let in who asked", &[]),
    user("group/reject", "Not let in who asked", &[]),
    user("group/invite", "Bring users into a group", &["added", "asked", "refused"]),
    user("group/kick", "Remove members", &[]),
    user("group/leave", "Leave a group", &[]),
    user("group/dissolve", "End a group", &[]),
    user("group/role", "Make a member admin or not", &[]),
    user("group/transfer", "Give a group to another owner", &[]),
    user("group/mute", "Let a member, or all, write no more", &[]),
    user("group/unmute", "Let a member, or all, write again", &[]),
    user("group/set", "Change a group", &[]),
    user("group/members", "Members of a group", &["members", "next"]),
    user("channel/create", "Make a channel", &["channel"]),
    user("channel/follow", "Follow a channel", &[]),
    user("channel/unfollow", "Follow a channel no more", &[]),
    user("channel/info", "About a channel", &["channel", "name", "owner", "followers", "last"]),
    user("channel/publishers", "Change who publishes", &[]),
    user("room/create", "Make a room", &["room"]),
    user("room/info", "About a room", &["room", "name", "owner", "viewers", "muted"]),
    user("room/close", "Close a room", &["room"]),
    user("room/mute", "Let a user, or all, write no more in a room", &[]),
    user("room/unmute", "Let a user, or all, write again in a room", &[]),
    user("room/ban", "Keep a user out of a room", &[]),
    user("room/unban", "Let a user into a room again", &[]),
    user("room/invite", "Let users into a room that asks for an invitation", &[]),
    user("room/role", "Make a user a moderator of a room, or no longer", &[]),
    user("room/members", "Some who are in a room", &["viewers", "sample"]),
    user("presence/watch", "Hear of users' presence", &["users"]),
    user("presence/unwatch", "Hear of users' presence no more", &["users"]),
    user("presence/get", "Users' presence now", &["users"]),
    user("receipt/list", "Who has received and read a message", &["recv", "read"]),
    user("receipt/count", "How many have", &["recv", "read", "members"]),
    user("device/list", "One's devices", &["devices"]),
    user("device/kick", "End a device's connection", &[]),
    user("device/push-token", "Where to push for a device", &[]),
    user("tokens/create", "Make a token, shown this once", &["id", "token", "expires"]),
    user("tokens/list", "One's tokens, without their texts", &["tokens"]),
    user("tokens/revoke", "End a token and the connections that use it", &[]),
    operator("admin/users/create", "Make an account", ACCOUNT),
    operator("admin/users/reset", "Give an account another password", ACCOUNT),
    operator("admin/users/disable", "Lock a user out, at once", ACCOUNT),
    operator("admin/users/enable", "Let a user in again", ACCOUNT),
    operator("admin/users/delete", "Remove an account, or everything of a user", &[]),
    operator(
        "admin/users/export",
        "Everything kept of a user",
        &["user", "profile", "account", "devices", "roster", "conversations", "tokens", "messages"],
    ),
    operator("admin/users/list", "Accounts", &["users", "next"]),
    operator("admin/users/search", "Accounts whose user contains a text", &["users", "next"]),
    operator("admin/clients/list", "Connected clients", &["clients", "next"]),
    operator("admin/clients/kick", "End connections", &["kicked"]),
    operator("admin/sessions/list", "Stored sessions", &["sessions", "next"]),
    operator("admin/sessions/delete", "End a session", &[]),
    operator("admin/subscriptions/list", "Subscriptions", &["subscriptions", "next"]),
    operator("admin/queues/list", "How much waits for stored sessions", &["sessions", "next"]),
    operator("admin/retained/list", "Retained messages", &["messages", "next"]),
    operator("admin/retained/delete", "Remove a retained message", &[]),
    operator("admin/bridges/list", "How links to other brokers are doing", &["bridges"]),
    operator("admin/bridges/pause", "No connection of a link until it is resumed", BRIDGE),
    operator("admin/bridges/resume", "A link connects, whatever its start type", BRIDGE),
    operator("admin/bridges/drop-queue", "Forget what waits to go out over a link", BRIDGE),
    operator("admin/sites/list", "How lines to other sites are doing", &["sites"]),
    operator("admin/sites/pause", "Nothing passes a line until it is resumed", SITE),
    operator("admin/sites/resume", "A line goes on with what is owed", SITE),
    operator("admin/audit/list", "What operators did, newest first", &["records", "next"]),
];
