//! The ownership rule: a group subscribes to one topic, and who owns a partition of it takes the same partition of
//! the other topics too, without the group knowing; their offsets are committed in the same group.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{Area, Check, Doing, Failure, Verdict, ensure};
use crate::clients::{committed, consumer, producer, write};
use crate::context::{Context, PATIENCE, until};
use crate::members::{Follow, Member, REBALANCE, await_shares, ensure_all_processed};

const fn check(name: &'static str, run: fn(&Context) -> Verdict) -> Check {
    Check { area: Area::Ownership, name, run }
}

pub(super) const CHECKS: &[Check] = &[
    check("range: partitions of other topics follow the inbox through joins and leaves", range),
    check("cooperative-sticky: partitions of other topics follow the inbox through joins and leaves", sticky),
    check("a member with another set of followed topics can share the group", another_set),
];

const PARTITIONS: i32 = 4;

struct Topics {
    inbox: String,
    events: String,
}

fn topics(cx: &Context) -> Result<Topics, Failure> {
    Ok(Topics { inbox: cx.topic("inbox", PARTITIONS)?, events: cx.topic("events", PARTITIONS)? })
}

/// Each member owns the same partitions of both topics.
fn ensure_pairs(members: &[&Member<Follow>], topics: &Topics) -> Result<(), Failure> {
    for member in members {
        let owned = member.owned();
        let of = |topic: &str| -> BTreeSet<i32> { owned.iter().filter(|(t, _)| t == topic).map(|(_, p)| *p).collect() };
        ensure!(of(&topics.inbox) == of(&topics.events), "a member owns {owned:?}");
    }
    Ok(())
}

fn follow(cx: &Context, assignor: &str) -> Verdict {
    let topics = topics(cx)?;
    let group = cx.group("service");
    let producer = producer(cx, &[])?;
    let settings = [("partition.assignment.strategy", assignor)];
    let join = || {
        let context = Follow::new(vec![topics.events.clone()]);
        Member::join_as(cx, &group, &topics.inbox, &settings, context)
    };
    let both = [topics.inbox.as_str(), topics.events.as_str()];
    let stage = |members: &[&Member<Follow>]| -> Result<(), Failure> {
        await_shares(members, &both, PARTITIONS, REBALANCE)?;
        ensure_pairs(members, &topics)
    };
    let mut written = 0;
    let mut feed = || -> Result<(), Failure> {
        for topic in both {
            for partition in 0..PARTITIONS {
                write(&producer, topic, partition, (0..40).map(|i| i.to_string()))?;
            }
        }
        written += 40;
        Ok(())
    };
    feed()?;
    let first = join()?;
    stage(&[&first])?;
    let second = join()?;
    feed()?;
    stage(&[&first, &second])?;
    let mut work = vec![first.leave()];
    feed()?;
    stage(&[&second])?;
    let third = join()?;
    feed()?;
    stage(&[&second, &third])?;
    await_committed(cx, &group, &both, written)?;
    work.extend([second.leave(), third.leave()]);
    let wanted: BTreeMap<_, _> =
        both.iter().flat_map(|topic| (0..PARTITIONS).map(|p| (((*topic).to_owned(), p), written))).collect();
    ensure_all_processed(&work, &wanted)
}

fn await_committed(cx: &Context, group: &str, topics: &[&str], end: i64) -> Result<(), Failure> {
    let asker = consumer(cx, group, &[])?;
    for topic in topics {
        for partition in 0..PARTITIONS {
            until(&format!("the group at the end of {topic}/{partition}"), PATIENCE, || {
                let now = committed(&asker, topic, partition, PATIENCE).doing("committed offset")?;
                Ok((now == Some(end)).then_some(()))
            })?;
        }
    }
    Ok(())
}

fn range(cx: &Context) -> Verdict {
    follow(cx, "range")
}

fn sticky(cx: &Context) -> Verdict {
    follow(cx, "cooperative-sticky")
}

/// A rolling upgrade that adds an input: the old member follows one topic, the new one two.
fn another_set(cx: &Context) -> Verdict {
    let topics = topics(cx)?;
    let added = cx.topic("added", PARTITIONS)?;
    let group = cx.group("service");
    let settings = [("partition.assignment.strategy", "range")];
    let join = |others: Vec<String>| Member::join_as(cx, &group, &topics.inbox, &settings, Follow::new(others));
    let old = join(vec![topics.events.clone()])?;
    await_shares(&[&old], &[&topics.inbox, &topics.events], PARTITIONS, REBALANCE)?;
    let new = join(vec![topics.events.clone(), added.clone()])?;
    until("a share of the inbox for each", REBALANCE, || {
        Ok((old.owned().len() == 4 && new.owned().len() == 6).then_some(()))
    })?;
    drop(old);
    await_shares(&[&new], &[&topics.inbox, &topics.events, &added], PARTITIONS, REBALANCE)?;
    Ok(String::new())
}
