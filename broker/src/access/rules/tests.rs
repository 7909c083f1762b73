use super::*;
use crate::access::LoginMethod;

fn rules(text: &str) -> Rules {
    Rules::parse(text, Path::new("rules")).unwrap()
}

fn user(name: &str) -> Identity {
    Identity::new(name, LoginMethod::Password)
}

const EXAMPLE: &str = "
# a comment
user alice
  allow publish   news/#
  deny  both      inbox/alice/secret
user *
  allow both      inbox/%u/#
  deny  publish   news/#
  allow subscribe news/#
  allow publish   devices/%u/%c/up
anonymous
  allow subscribe news/+
  deny  subscribe $SYS/#
user alice
  allow subscribe late/#
";

#[test]
fn the_first_line_that_fits_decides() {
    use Action::{Publish, Subscribe};
    let rules = rules(EXAMPLE);
    let cases = [
        ("alice", Publish, "news/today", true),
        ("bob", Publish, "news/today", false),
        ("bob", Subscribe, "news/today", true),
        ("bob", Subscribe, "news/#", true),
        ("bob", Subscribe, "$share/g/news/#", true),
        ("bob", Subscribe, "news2/#", false),
        ("bob", Subscribe, "#", false),
        ("bob", Subscribe, "inbox/bob/#", true),
        ("bob", Subscribe, "inbox/+/#", false),
        ("bob", Subscribe, "inbox/alice/#", false),
        ("bob", Publish, "inbox/bob/1", true),
        // One line denies a part of what a later one allows: refused as a whole.
        ("alice", Subscribe, "inbox/alice/#", false),
        ("alice", Subscribe, "inbox/alice/open", true),
        ("alice", Publish, "inbox/alice/secret", false),
        ("alice", Subscribe, "late/x", true),
        ("bob", Subscribe, "late/x", false),
        ("bob", Publish, "devices/bob/client/up", true),
        ("bob", Publish, "devices/bob/other/up", false),
        ("", Subscribe, "news/today", true),
        ("", Subscribe, "news/#", false),
        ("", Publish, "news/today", false),
        ("", Subscribe, "inbox//x", false),
    ];
    for (name, action, topic, allowed) in cases {
        let who = if name.is_empty() { Identity::anonymous() } else { user(name) };
        assert_eq!(rules.allows(&who, "client", action, topic), allowed, "{name} {topic}");
    }
}

#[test]
fn sys_is_read_by_users_and_written_by_nobody() {
    use Action::{Publish, Subscribe};
    let (bob, nobody) = (user("bob"), Identity::anonymous());
    let denying = rules("user *\ndeny subscribe $SYS/secret/#\n");
    let allowing = rules("anonymous\nallow both $SYS/#\nuser *\nallow both #\n");
    let cases = [
        (&Rules::deny_all(), &bob, Subscribe, "$SYS/#", true),
        (&Rules::deny_all(), &bob, Subscribe, "$SYSTEM/#", false),
        (&Rules::deny_all(), &nobody, Subscribe, "$SYS/#", false),
        (&Rules::allow_all(), &nobody, Subscribe, "$SYS/#", true),
        (&Rules::allow_all(), &nobody, Publish, "$SYS/x", false),
        (&Rules::allow_all(), &bob, Publish, "x", true),
        (&denying, &bob, Subscribe, "$SYS/#", false),
        (&denying, &bob, Subscribe, "$SYS/open", true),
        (&allowing, &nobody, Subscribe, "$SYS/broker/+", true),
        (&allowing, &nobody, Publish, "$SYS/broker/x", false),
        (&allowing, &bob, Publish, "$other/x", false),
    ];
    for (rules, who, action, topic, allowed) in cases {
        assert_eq!(rules.allows(who, "c", action, topic), allowed, "{who:?} {action:?} {topic}");
    }
}

#[test]
fn names_that_are_more_than_a_level_are_never_put_in() {
    let rules = rules("user *\ndeny both audit/%u/#\nallow both %u/%c/#\nallow both audit/#\n");
    for name in ["a/b", "+", "#", "a+", "$app", "x#"] {
        let who = user(name);
        assert!(!rules.allows(&who, "c", Action::Subscribe, &format!("{name}/c/x")), "{name}");
        assert!(!rules.allows(&user("u"), name, Action::Publish, &format!("u/{name}/x")), "{name}");
        // What a deny line would keep from somebody, it keeps from whoever cannot be put in.
        assert!(!rules.allows(&who, "c", Action::Publish, "audit/anybody/x"), "{name}");
    }
    assert!(rules.allows(&user("u"), "c", Action::Publish, "u/c/x"));
    assert!(rules.allows(&user("u"), "c", Action::Publish, "audit/other/x"));
    assert!(!rules.allows(&user("u"), "c", Action::Publish, "audit/u/x"));
}

#[test]
fn a_wrong_line_is_named() {
    let cases = [
        ("allow both #", 1, RuleFault::NoHeading),
        ("\nuser", 2, RuleFault::NoUser),
        ("users *", 1, RuleFault::Line("users *".to_owned())),
        ("anonymous x", 1, RuleFault::Line("anonymous x".to_owned())),
        ("user *\nallow #", 2, RuleFault::Action("#".to_owned())),
        ("user *\nallow read #", 2, RuleFault::Action("read".to_owned())),
        ("user *\nallow both", 2, RuleFault::Filter(String::new())),
        ("user *\nallow both a#", 2, RuleFault::Filter("a#".to_owned())),
        ("user *\nallow both a/# # all", 2, RuleFault::Filter("a/# # all".to_owned())),
        ("user *\nallow both $share/g/a", 2, RuleFault::Shared),
        ("user *\nallow both a/x%u", 2, RuleFault::PartOfLevel("x%u".to_owned())),
        ("anonymous\nallow both a/%u", 2, RuleFault::AnonymousUser),
    ];
    for (text, line, fault) in cases {
        let error = Rules::parse(text, Path::new("rules")).unwrap_err();
        assert_eq!((error.line, &error.fault), (line, &fault), "{text}");
        assert_eq!(error.to_string(), format!("rules:{line}: {fault}"));
    }
}

#[test]
fn user_names_may_hold_blanks() {
    let rules = rules("user bob smith\nallow both my files/#\n");
    assert!(rules.allows(&user("bob smith"), "c", Action::Publish, "my files/a"));
    assert!(!rules.allows(&user("bob"), "c", Action::Publish, "my files/a"));
}

#[test]
fn the_example_does_what_it_says() {
    use Action::{Publish, Subscribe};
    let rules = rules(include_str!("../../../../config/rules.example"));
    let cases = [
        ("alice", Publish, "inbox/bob", true),
        ("alice", Subscribe, "inbox/alice", true),
        ("alice", Subscribe, "inbox/+", false),
        ("alice", Publish, "home/alice/lamp", true),
        ("alice", Publish, "home/bob/lamp", false),
        ("alice", Publish, "news/today", false),
        ("editor", Publish, "news/today", true),
        ("editor", Publish, "home/editor/lamp", true),
        ("", Subscribe, "news/#", true),
        ("", Publish, "inbox/bob", false),
    ];
    for (name, action, topic, allowed) in cases {
        let who = if name.is_empty() { Identity::anonymous() } else { user(name) };
        assert_eq!(rules.allows(&who, "c", action, topic), allowed, "{name} {topic}");
    }
}
