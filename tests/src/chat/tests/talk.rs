//! What is said arrives: acknowledged, in order, at whom it is for, and in lists and pulls.

use super::story::{BOB, DESK, EVE, NEWS, PAIR, PHONE, Story, TEAM, clean, says};
use crate::chat::entry::Kind;
use crate::chat::event::{Answer, Event, Line, What};

#[test]
fn an_ordinary_talk_is_clean() {
    let mut story = Story::begin();
    for conv in [PAIR, TEAM] {
        let seq = story.talks(conv);
        story.talks(conv);
        for device in [DESK, BOB] {
            let recall = (device == DESK).then(|| story.operates(PHONE, conv, What::Recall(seq)));
            let _ = recall;
        }
        let head = story.logs[conv].len() as u64;
        story.gets(DESK, conv, head);
        story.gets(BOB, conv, head);
    }
    clean(story);
}

#[test]
fn what_was_acknowledged_is_there_under_its_number() {
    let mut story = Story::begin();
    story.talks(PAIR);
    story.sends(PHONE, PAIR);
    story.logs[PAIR].pop();
    says(&story.rests(), "nobody knows entry 2");

    // The number was given away a second time.
    let mut story = Story::begin();
    story.sends(PHONE, PAIR);
    story.logs[PAIR].clear();
    let deed = story.asks(DESK, PAIR, What::Send);
    story.stores(deed);
    story.gets(BOB, PAIR, 1);
    story.logs[PAIR][0].id = "other".to_owned();
    story.comes(BOB, true);
    story.gets(BOB, PAIR, 1);
    says(&story.rests(), "id and time was");

    let mut story = Story::begin();
    let deed = story.asks(PHONE, PAIR, What::Send);
    story.judge.note(Event::Answered { deed, answer: Answer::Done });
    says(&story.rests(), "is not stored");
}

#[test]
fn a_number_names_one_message_and_a_message_one_number() {
    let mut story = Story::begin();
    let (first, second) =
        (story.asks(PHONE, PAIR, What::Send), story.asks(PHONE, PAIR, What::Send));
    story.stores(first);
    story.gets(BOB, PAIR, 1);
    story.logs[PAIR][0].payload = story.body(second, 1);
    story.gets(DESK, PAIR, 1);
    says(&story.judge.faults, "number 1 was");

    let mut story = Story::begin();
    let deed = story.asks(PHONE, PAIR, What::Send);
    let seq = story.stores(deed);
    story.answered(deed, seq);
    let meant = story.judge.deed(deed);
    story.judge.note(Event::Asked { deed, meant, attempt: 2 });
    let body = story.body(deed, 2);
    let again = story.append(PAIR, "ann", Kind::Message, 0, body);
    story.answered(deed, again);
    says(&story.judge.faults, "stored 2 times");
}

#[test]
fn entries_come_in_order_and_none_is_skipped() {
    let mut story = Story::begin();
    story.talks(PAIR);
    story.sends(PHONE, PAIR);
    story.sends(PHONE, PAIR);
    story.gets(DESK, PAIR, 2);
    story.gets(DESK, PAIR, 3);
    story.gets(BOB, PAIR, 3);
    says(&story.rests(), "gets 3 before 2");

    let mut story = Story::begin();
    story.talks(PAIR);
    story.talks(PAIR);
    story.gets(BOB, PAIR, 1);
    says(&story.judge.faults, "1 came after 2");

    let mut story = Story::begin();
    story.talks(PAIR);
    story.sends(PHONE, PAIR);
    story.gets(DESK, PAIR, 2);
    says(&story.rests(), "d2 has not got 2");
}

#[test]
fn what_was_not_acknowledged_comes_again_and_what_was_may_not() {
    // Acknowledged over the last connection: the session goes on behind it.
    let mut story = Story::begin();
    story.talks(PAIR);
    story.comes(BOB, true);
    story.talks(PAIR);
    clean(story);

    // Not acknowledged: to be sent again before what follows.
    let mut story = Story::begin();
    story.sends(PHONE, PAIR);
    story.gets(DESK, PAIR, 1);
    let entry = story.logs[PAIR][0].clone();
    story.is_sent(BOB, PAIR, entry);
    story.comes(BOB, true);
    story.talks(PAIR);
    says(&story.rests(), "d2 gets 2 before 1");
}

#[test]
fn a_new_session_begins_where_its_user_is() {
    let mut story = Story::begin();
    story.talks(PAIR);
    story.comes(DESK, false);
    story.talks(PAIR);
    clean(story);

    // Bob has received nothing with any device.
    let mut story = Story::begin();
    story.sends(PHONE, PAIR);
    story.gets(DESK, PAIR, 1);
    story.comes(BOB, false);
    story.talks(PAIR);
    says(&story.rests(), "d2 gets 2 before 1");
}

#[test]
fn gaps_name_what_is_left_out() {
    let mut story = Story::begin();
    story.sends(PHONE, PAIR);
    story.sends(PHONE, PAIR);
    for device in [DESK, BOB] {
        story.judge.note(Event::Gap { device, conv: PAIR, from: 1, to: 1 });
        story.gets(device, PAIR, 2);
    }
    clean(story);
}

#[test]
fn a_device_never_gets_its_own_and_nobody_what_is_not_for_it() {
    let mut story = Story::begin();
    story.sends(PHONE, PAIR);
    story.gets(PHONE, PAIR, 1);
    says(&story.judge.faults, "its own entry");

    let mut story = Story::begin();
    let seq = story.talks(TEAM);
    story.gets(EVE, TEAM, seq);
    says(&story.rests(), "which is not for it");

    // Bob is out from the kick on, which he still sees.
    let mut story = Story::begin();
    story.talks(TEAM);
    let kick = story.change("kick", &["bob"]);
    story.gets(PHONE, TEAM, kick);
    story.gets(DESK, TEAM, kick);
    story.gets(BOB, TEAM, kick);
    let seq = story.sends(PHONE, TEAM);
    story.gets(DESK, TEAM, seq);
    story.gets(BOB, TEAM, seq);
    says(&story.rests(), "which is not for it");
}

#[test]
fn who_is_out_writes_nothing() {
    let mut story = Story::begin();
    let deed = story.asks(EVE, TEAM, What::Send);
    let seq = story.stores(deed);
    story.answered(deed, seq);
    [PHONE, DESK, BOB].iter().for_each(|device| story.gets(*device, TEAM, seq));
    says(&story.rests(), "eve is no member");

    let mut story = Story::begin();
    let block = story.asks(BOB, PAIR, What::Block);
    story.judge.note(Event::Answered { deed: block, answer: Answer::Done });
    story.talks(PAIR);
    says(&story.rests(), "passed a block");

    let mut story = Story::begin();
    let deed = story.asks(PHONE, PAIR, What::Send);
    story.judge.note(Event::Answered { deed, answer: Answer::Refused("135".to_owned()) });
    says(&story.rests(), "refused without a reason");
}

#[test]
fn a_recalled_body_never_comes_later() {
    // Written before the recall was acknowledged, for all that can be known: allowed.
    let mut story = Story::begin();
    let seq = story.sends(PHONE, PAIR);
    let body = story.logs[PAIR][0].clone();
    story.gets(DESK, PAIR, seq);
    let recall = story.operates(PHONE, PAIR, What::Recall(seq));
    story.is_sent(BOB, PAIR, body.clone());
    story.judge.note(Event::Acknowledged { device: BOB, conv: PAIR, seq });
    story.gets(BOB, PAIR, recall);
    story.gets(DESK, PAIR, recall);
    clean(story);

    // Bob's connection began after that, or has answered a ping sent after that.
    for ping in [false, true] {
        let mut story = Story::begin();
        let seq = story.sends(PHONE, PAIR);
        let body = story.logs[PAIR][0].clone();
        story.operates(PHONE, PAIR, What::Recall(seq));
        if ping {
            story.judge.note(Event::Ping { device: BOB });
            story.judge.note(Event::Pong { device: BOB });
        } else {
            story.comes(BOB, true);
        }
        story.is_sent(BOB, PAIR, body);
        says(&story.judge.faults, "which was recalled before");
    }

    // The event of an edit carries a body, too.
    let mut story = Story::begin();
    let seq = story.talks(PAIR);
    let edit = story.operates(PHONE, PAIR, What::Edit(seq));
    let entry = story.logs[PAIR][edit as usize - 1].clone();
    story.operates(PHONE, PAIR, What::Recall(seq));
    story.comes(BOB, true);
    story.is_sent(BOB, PAIR, entry);
    says(&story.judge.faults, "which was recalled before");

    // Still in the log.
    let mut story = Story::begin();
    let seq = story.talks(PAIR);
    let body = story.logs[PAIR][0].clone();
    let recall = story.operates(PHONE, PAIR, What::Recall(seq));
    story.gets(DESK, PAIR, recall);
    story.gets(BOB, PAIR, recall);
    story.logs[PAIR][0] = body;
    says(&story.rests(), "which was recalled before");
}

#[test]
fn lists_and_pulls_say_what_the_log_says() {
    type Twist = fn(&mut Line);
    let table: [(Twist, &str); 7] = [
        (|line| line.unread += 1, "unread"),
        (|line| line.read = 0, "has read up to"),
        (|line| line.count += 1, "is 2..2 with 2"),
        (|line| line.last += 1, "nobody knows entry 3"),
        (|line| line.last -= 1, "is 2..2 with 1"),
        (|line| line.recv += 100, "has received up to"),
        (|line| line.min += 1, "sees from 2 on"),
    ];
    for (twist, what) in table {
        let mut story = Story::begin();
        story.talks(PAIR);
        story.talks(PAIR);
        says(&story.rests_with(twist, None), what);
    }
    let mut story = Story::begin();
    story.talks(PAIR);
    story.talks(PAIR);
    says(&story.rests_with(|_| {}, Some((1, 1))), "bob pulls Some(2) where Some(1)");
    let mut story = Story::begin();
    story.talks(PAIR);
    story.talks(PAIR);
    story.logs[PAIR][1].count = Some(7);
    story.comes(EVE, true);
    says(&story.rests(), "count was 2, is 7");
}

#[test]
fn a_channel_has_publishers_and_followers() {
    let follow = |story: &mut Story| {
        story.does(PHONE, NEWS, What::Create);
        story.does(BOB, NEWS, What::Join);
    };
    let mut story = Story::begin();
    follow(&mut story);
    story.talks(NEWS);
    clean(story);

    let mut story = Story::begin();
    follow(&mut story);
    let seq = story.sends(BOB, NEWS);
    story.gets(PHONE, NEWS, seq);
    story.gets(DESK, NEWS, seq);
    says(&story.rests(), "bob is no publisher");

    let mut story = Story::begin();
    follow(&mut story);
    let seq = story.talks(NEWS);
    story.gets(EVE, NEWS, seq);
    says(&story.rests(), "which is not for it");

    // Who has gone hears nothing of what is said then.
    let mut story = Story::begin();
    follow(&mut story);
    story.does(BOB, NEWS, What::Leave);
    story.talks(NEWS);
    says(&story.rests(), "which is not for it");

    let mut story = Story::begin();
    follow(&mut story);
    let seq = story.sends(PHONE, NEWS);
    story.gets(DESK, NEWS, seq);
    says(&story.rests(), "d2 has not got 1");
}
