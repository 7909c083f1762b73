//! What is said goes again: burnt, expired, cleared, hidden, beyond retention, or never seen.

use super::story::{BOB, DESK, PAIR, PHONE, Story, TEAM, says};
use crate::chat::entry::Kind;
use crate::chat::event::{Answer, Event, Line, What};
use crate::chat::judge::Fault;

#[test]
fn a_message_burns_once_it_was_read_for_so_long() {
    let burn = |story: &mut Story, wait: u64, read: bool| {
        story.operates(PHONE, PAIR, What::Burning(2));
        story.gets(DESK, PAIR, 1);
        story.gets(BOB, PAIR, 1);
        if read {
            story.does(BOB, PAIR, What::Read(1));
        }
        story.passes(wait);
    };
    let burns = |story: &mut Story| {
        story.logs[PAIR][0].kind = Kind::Void;
        story.logs[PAIR][0].payload.clear();
        let seq = story.append(PAIR, "ann", Kind::Burn, 1, Vec::new());
        [PHONE, DESK, BOB].iter().for_each(|device| story.gets(*device, PAIR, seq));
    };
    let told = |line: &mut Line| {
        (line.read, line.recv, line.unread) = (1, 1, 0);
    };
    for (wait, read, what) in
        [(3, true, None), (1, true, Some("burns at")), (9, false, Some("burns at"))]
    {
        let mut story = Story::begin();
        story.passes(5);
        burn(&mut story, wait, read);
        burns(&mut story);
        let faults = story.rests_with(
            |line| {
                if line.conv == PAIR && read {
                    told(line)
                }
            },
            None,
        );
        match what {
            Some(what) => says(&faults, what),
            None => assert_eq!(faults, []),
        }
    }
    let mut story = Story::begin();
    burn(&mut story, 60, true);
    says(&story.rests(), "what should have burnt");

    let mut story = Story::begin();
    story.passes(5);
    burn(&mut story, 3, true);
    let body = story.logs[PAIR][0].clone();
    burns(&mut story);
    story.comes(BOB, true);
    story.is_sent(BOB, PAIR, body);
    says(&story.judge.faults, "which was recalled before");
}

#[test]
fn what_has_expired_is_void_and_nothing_else_is() {
    let send = |story: &mut Story| {
        story.passes(5);
        story.operates(PHONE, PAIR, What::Fleeting(2));
        story.gets(DESK, PAIR, 1);
    };
    let void = |story: &mut Story| {
        story.logs[PAIR][0].kind = Kind::Void;
        story.logs[PAIR][0].payload.clear();
        story.gets(BOB, PAIR, 1);
    };
    // A list counts it still.
    let counted = |line: &mut Line| line.unread = u64::from(line.conv == PAIR && line.read == 0);
    let mut story = Story::begin();
    send(&mut story);
    story.passes(3);
    void(&mut story);
    assert_eq!(story.rests_with(counted, None), []);

    let mut story = Story::begin();
    send(&mut story);
    story.passes(1);
    void(&mut story);
    says(&story.rests(), "void, and nobody has recalled it");

    let mut story = Story::begin();
    send(&mut story);
    story.passes(9);
    story.comes(BOB, true);
    story.gets(BOB, PAIR, 1);
    says(&story.judge.faults, "that had expired");
}

#[test]
fn what_was_cleared_is_gone_and_what_is_hidden_comes_back_with_news() {
    let mut story = Story::begin();
    story.talks(PAIR);
    story.does(BOB, PAIR, What::Clear);
    says(&story.rests(), "bob sees from 1 on, cleared 1..1");

    let mut story = Story::begin();
    story.talks(PAIR);
    story.does(BOB, PAIR, What::Hide(true));
    says(&story.rests(), "bob: in the list");

    let gone = |story: &mut Story| {
        story.rests_with(
            |line| {
                if line.conv == PAIR {
                    line.conv = usize::MAX
                }
            },
            None,
        )
    };
    let mut story = Story::begin();
    story.talks(PAIR);
    says(&gone(&mut story), "bob: not in the list");

    let mut story = Story::begin();
    story.talks(PAIR);
    for device in [PHONE, BOB] {
        story.does(device, PAIR, What::Hide(true));
    }
    assert_eq!(gone(&mut story), []);

    let mut story = Story::begin();
    story.talks(PAIR);
    story.does(BOB, PAIR, What::Hide(true));
    story.talks(PAIR);
    says(&gone(&mut story), "bob: not in the list");

    // Hidden perhaps, as the answer was lost: its entries are asked for all the same.
    let mut story = Story::begin();
    story.talks(PAIR);
    story.asks(BOB, PAIR, What::Hide(true));
    gone(&mut story);
    assert!(story.judge.listed(1).contains(&PAIR));
}

#[test]
fn what_all_have_cleared_before_anybody_saw_it_is_not_missed() {
    let unseen = |cleared: bool| {
        let mut story = Story::begin();
        story.talks(PAIR);
        // Without an id of its own the acknowledgement tells no number.
        let deed = story.asks(PHONE, PAIR, What::Send);
        story.stores(deed);
        story.judge.note(Event::Answered { deed, answer: Answer::Done });
        for device in [PHONE, BOB].into_iter().filter(|_| cleared) {
            story.does(device, PAIR, What::Clear);
        }
        story.talks(PAIR);
        story.judge.verdict(story.judge.order())
    };
    assert_eq!(unseen(true), []);
    says(&unseen(false), "nobody knows entry 2");
}

#[test]
fn what_retention_has_taken_may_be_named_over_a_connection_that_is_lost() {
    let gets_the_third = |lost: bool, keep: u64| {
        let mut story = Story::begin();
        story.judge.keep = Some(keep);
        for _ in 0..3 {
            let seq = story.sends(PHONE, PAIR);
            story.gets(DESK, PAIR, seq);
        }
        if lost {
            let link = story.last_link + 1;
            story.judge.note(Event::Connect { device: BOB, link, anew: false });
        }
        story.last_link += 1;
        story.comes(BOB, true);
        story.gets(BOB, PAIR, 3);
        let since = story.judge.order();
        story.judge.verdict(since)
    };
    let missed = |faults: &[Fault]| faults.iter().any(|f| f.what.contains("d2 gets 3 before"));
    assert!(!missed(&gets_the_third(true, 1)));
    assert!(missed(&gets_the_third(true, 2)), "1 alone may have been named");
    assert!(missed(&gets_the_third(false, 1)), "nothing was lost");
}

#[test]
fn a_session_may_have_begun_anew_over_a_connection_that_is_lost() {
    let skips_the_own = |anew: bool| {
        let mut story = Story::begin();
        story.sends(PHONE, PAIR);
        let link = story.last_link + 1;
        story.judge.note(Event::Connect { device: DESK, link, anew });
        story.last_link += 1;
        story.comes(DESK, true);
        let seq = story.sends(BOB, PAIR);
        story.gets(DESK, PAIR, seq);
        let since = story.judge.order();
        story.judge.verdict(since).iter().any(|fault| fault.what.contains("d1 gets 2 before 1"))
    };
    assert!(skips_the_own(false), "it has the old session, and 1 is owed to it");
    assert!(!skips_the_own(true));
}

#[test]
fn what_is_refused_when_it_is_asked_again_may_have_been_done() {
    let cleared = |attempts: u16| {
        let mut story = Story::begin();
        story.talks(PAIR);
        let deed = story.asks(BOB, PAIR, What::Clear);
        for attempt in 2..=attempts {
            let meant = story.judge.deed(deed);
            story.judge.note(Event::Asked { deed, meant, attempt });
        }
        let answer = Answer::Refused("unavailable".to_owned());
        story.judge.note(Event::Answered { deed, answer });
        let since = story.judge.order();
        let deed = story.asks(BOB, PAIR, What::Heads);
        let pair = Line { conv: PAIR, last: 1, count: 1, unread: 0, read: 1, recv: 1, min: 2 };
        let team = Line { conv: TEAM, last: 1, count: 0, unread: 0, read: 0, recv: 1, min: 1 };
        story.judge.note(Event::Listed { deed, lines: vec![pair, team] });
        story.judge.verdict(since)
    };
    assert_eq!(cleared(2), []);
    says(&cleared(1), "bob sees from 2 on");
}

#[test]
fn what_nobody_has_seen_is_missed_unless_all_have_cleared_it() {
    let cleared_by = |devices: &[usize]| {
        let mut story = Story::begin();
        story.does(PHONE, PAIR, What::Send);
        for device in devices {
            story.does(*device, PAIR, What::Clear);
        }
        let since = story.judge.order();
        let deed = story.asks(BOB, PAIR, What::Pull(1));
        story.judge.note(Event::PullEnded { deed, next: None, min: 2, last: 1 });
        story.judge.verdict(since)
    };
    assert_eq!(cleared_by(&[PHONE, BOB]), []);
    says(&cleared_by(&[BOB]), "nobody knows entry 1");
}

#[test]
fn retention_takes_what_is_beyond_it_and_nothing_else() {
    let kept = |from: u64, keep: u64| {
        let mut story = Story::begin();
        story.judge.keep = Some(keep);
        (0..4).for_each(|_| {
            story.talks(PAIR);
        });
        let told = |line: &mut Line| {
            if line.conv == PAIR {
                (line.min, line.unread) = (from, line.unread.min(5 - from));
            }
        };
        story.rests_with(told, None)
    };
    let pulls = |fault: &Fault| fault.what.contains("pulls");
    assert!(kept(3, 2).iter().all(pulls));
    says(&kept(4, 2), "sees from 4 on");
}
