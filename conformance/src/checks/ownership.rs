//! The ownership rule: a group subscribes to one topic, and the owner of a partition also takes the same partition of the other
//! topics. The group does not know these topics, but stores their offsets.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, ensure};
use crate::clients::{producer, write};
use crate::context::{CheckContext, wait_until};
use crate::members::{
    FollowedTopics, REBALANCE_TIMEOUT, TestMember, await_committed, await_shares, ensure_all_processed,
};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Ownership, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("range: partitions of other topics follow the inbox through joins and leaves", range),
    check("cooperative-sticky: partitions of other topics follow the inbox through joins and leaves", sticky),
    check("members with different sets of followed topics can share a group", different_topics),
];

const PARTITIONS: i32 = 4;

struct TopicPair {
    inbox: String,
    events: String,
}

fn topics(cx: &CheckContext) -> Result<TopicPair, CheckFailure> {
    Ok(TopicPair { inbox: cx.topic("inbox", PARTITIONS)?, events: cx.topic("events", PARTITIONS)? })
}

/// Ensures that each member owns the same partitions of both topics.
fn ensure_same_partitions(members: &[&TestMember<FollowedTopics>], topics: &TopicPair) -> Result<(), CheckFailure> {
    for member in members {
        let owned = member.owned();
        let of = |topic: &str| -> BTreeSet<i32> { owned.iter().filter(|(t, _)| t == topic).map(|(_, p)| *p).collect() };
        ensure!(of(&topics.inbox) == of(&topics.events), "a member owns {owned:?}");
    }
    Ok(())
}

fn check_followed_topics(cx: &CheckContext, assignor: &str) -> CheckResult {
    let topics = topics(cx)?;
    let group = cx.group("service");
    let producer = producer(cx, &[])?;
    let settings = [("partition.assignment.strategy", assignor)];
    let join = || {
        let context = FollowedTopics::new(vec![topics.events.clone()]);
        TestMember::join_as(cx, &group, &topics.inbox, &settings, context)
    };
    let both = [topics.inbox.as_str(), topics.events.as_str()];
    let await_assignment = |members: &[&TestMember<FollowedTopics>]| -> Result<(), CheckFailure> {
        await_shares(members, &both, PARTITIONS, REBALANCE_TIMEOUT)?;
        ensure_same_partitions(members, &topics)
    };
    let mut written = 0;
    let mut write_everywhere = || -> Result<(), CheckFailure> {
        for topic in both {
            for partition in 0..PARTITIONS {
                write(&producer, topic, partition, (0..40).map(|i| i.to_string()))?;
            }
        }
        written += 40;
        Ok(())
    };
    write_everywhere()?;
    let first = join()?;
    await_assignment(&[&first])?;
    let second = join()?;
    write_everywhere()?;
    await_assignment(&[&first, &second])?;
    let mut histories = vec![first.leave()];
    write_everywhere()?;
    await_assignment(&[&second])?;
    let third = join()?;
    write_everywhere()?;
    await_assignment(&[&second, &third])?;
    await_committed(cx, &group, &both, PARTITIONS, written)?;
    histories.extend([second.leave(), third.leave()]);
    let expected: BTreeMap<_, _> =
        both.iter().flat_map(|topic| (0..PARTITIONS).map(|p| (((*topic).to_owned(), p), written))).collect();
    ensure_all_processed(&histories, &expected)
}

fn range(cx: &CheckContext) -> CheckResult {
    check_followed_topics(cx, "range")
}

fn sticky(cx: &CheckContext) -> CheckResult {
    check_followed_topics(cx, "cooperative-sticky")
}

/// A rolling upgrade that adds an input: the old member follows one topic, the new one two.
fn different_topics(cx: &CheckContext) -> CheckResult {
    let topics = topics(cx)?;
    let added = cx.topic("added", PARTITIONS)?;
    let group = cx.group("service");
    let settings = [("partition.assignment.strategy", "range")];
    let join =
        |others: Vec<String>| TestMember::join_as(cx, &group, &topics.inbox, &settings, FollowedTopics::new(others));
    let old = join(vec![topics.events.clone()])?;
    await_shares(&[&old], &[&topics.inbox, &topics.events], PARTITIONS, REBALANCE_TIMEOUT)?;
    let new = join(vec![topics.events.clone(), added.clone()])?;
    wait_until("a share of the inbox for each", REBALANCE_TIMEOUT, || {
        Ok((old.owned().len() == 4 && new.owned().len() == 6).then_some(()))
    })?;
    drop(old);
    await_shares(&[&new], &[&topics.inbox, &topics.events, &added], PARTITIONS, REBALANCE_TIMEOUT)?;
    Ok(String::new())
}
