//! Classic consumer groups: who owns what, what is remembered, who is let back in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use crate::check::{Area, Check, Doing, Failure, Verdict, ensure, ensure_eq};
use crate::clients::{TestProducer, committed, consumer, producer, read_count, write};
use crate::context::{Context, PATIENCE, until};
use crate::members::{Member, REBALANCE, await_shares, ensure_all_processed};

const fn check(name: &'static str, run: fn(&Context) -> Verdict) -> Check {
    Check { area: Area::Groups, name, run }
}

pub(super) const CHECKS: &[Check] = &[
    check("range: through joins and leaves each partition has one owner and each record is processed", range),
    check(
        "cooperative-sticky: through joins and leaves each partition has one owner and each record is processed",
        sticky,
    ),
    check("a cooperative join leaves the partitions that stay alone", cooperative_keeps),
    check("a static member that returns gets its partitions back without a rebalance", static_return),
    check(
        "range: a static member that dies in a rebalance and returns leaves no partition to nobody",
        static_return_amid,
    ),
    check("a second member with the same instance id fences the first", static_twice),
    check("a member that is gone without a word is replaced after its session", session),
    check("a group goes on where it committed", resume),
    check("groups are listed, described and deleted", administration),
    check("new partitions of a subscribed topic find an owner", grown),
];

fn write_everywhere(producer: &TestProducer, topic: &str, partitions: i32, each: i32) -> Result<(), Failure> {
    for partition in 0..partitions {
        write(producer, topic, partition, (0..each).map(|i| i.to_string()))?;
    }
    Ok(())
}

fn joins_and_leaves(cx: &Context, assignor: &str) -> Verdict {
    const PARTITIONS: i32 = 6;
    let topic = cx.topic("work", PARTITIONS)?;
    let group = cx.group("workers");
    let producer = producer(cx, &[])?;
    let settings = [("partition.assignment.strategy", assignor)];
    let join = || Member::join(cx, &group, &topic, &settings);
    let stage = |members: &[&Member]| await_shares(members, &[&topic], PARTITIONS, REBALANCE);
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    let first = join()?;
    stage(&[&first])?;
    let second = join()?;
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    stage(&[&first, &second])?;
    let third = join()?;
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    stage(&[&first, &second, &third])?;
    let mut work = vec![first.leave()];
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    stage(&[&second, &third])?;
    await_committed(cx, &group, &topic, PARTITIONS, 200)?;
    work.extend([second.leave(), third.leave()]);
    let wanted: BTreeMap<_, _> = (0..PARTITIONS).map(|p| ((topic.clone(), p), 200)).collect();
    ensure_all_processed(&work, &wanted)
}

/// A group is done when it has committed the ends.
fn await_committed(cx: &Context, group: &str, topic: &str, partitions: i32, end: i64) -> Result<(), Failure> {
    let asker = consumer(cx, group, &[])?;
    for partition in 0..partitions {
        until("the group at the end", PATIENCE, || {
            let now = committed(&asker, topic, partition, PATIENCE).doing("committed offset")?;
            Ok((now == Some(end)).then_some(()))
        })?;
    }
    Ok(())
}

fn range(cx: &Context) -> Verdict {
    joins_and_leaves(cx, "range")
}

fn sticky(cx: &Context) -> Verdict {
    joins_and_leaves(cx, "cooperative-sticky")
}

fn cooperative_keeps(cx: &Context) -> Verdict {
    let topic = cx.topic("keeps", 4)?;
    let group = cx.group("keeps");
    let settings = [("partition.assignment.strategy", "cooperative-sticky")];
    let first = Member::join(cx, &group, &topic, &settings)?;
    await_shares(&[&first], &[&topic], 4, REBALANCE)?;
    let before = first.owned();
    let second = Member::join(cx, &group, &topic, &settings)?;
    await_shares(&[&first, &second], &[&topic], 4, REBALANCE)?;
    ensure!(first.owned().is_subset(&before), "the first member got others: {:?}", first.owned());
    Ok(String::new())
}

fn static_return(cx: &Context) -> Verdict {
    let topic = cx.topic("static", 4)?;
    let group = cx.group("static");
    // Longer than a return takes on a busy machine; the group can be removed only when the sessions have ended.
    let settings = |id| [("group.instance.id", id), ("session.timeout.ms", "12000")];
    let join = |id| Member::join(cx, &group, &topic, &settings(id));
    let (first, second) = (join("one")?, join("two")?);
    await_shares(&[&first, &second], &[&topic], 4, REBALANCE)?;
    let (first_owned, second_owned, before) = (first.owned(), second.owned(), second.rebalances());
    drop(first);
    let started = Instant::now();
    let back = join("one")?;
    until("the returned member's partitions", REBALANCE, || Ok((back.owned() == first_owned).then_some(())))?;
    let took = started.elapsed();
    ensure_eq!(second.owned(), second_owned, "the other member's partitions");
    ensure_eq!(second.rebalances(), before, "the other member's rebalances");
    write_everywhere(&producer(cx, &[])?, &topic, 4, 5)?;
    until("the records", PATIENCE, || Ok((back.processed_count() + second.processed_count() == 20).then_some(())))?;
    Ok(format!("back after {:.0} ms", took.as_secs_f64() * 1_000.0))
}

fn static_return_amid(cx: &Context) -> Verdict {
    const PARTITIONS: i32 = 4;
    let topic = cx.topic("amid", PARTITIONS)?;
    let group = cx.group("amid");
    let producer = producer(cx, &[])?;
    let join = |id| {
        let static_member = [("group.instance.id", id), ("session.timeout.ms", "12000")];
        Member::join(
            cx,
            &group,
            &topic,
            &[static_member.as_slice(), &[("partition.assignment.strategy", "range")]].concat(),
        )
    };
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    let mut first = join("one")?;
    await_shares(&[&first], &[&topic], PARTITIONS, REBALANCE)?;
    // The group waits for what it is to give back, so it is in the middle of the rebalance when it dies.
    first.stop();
    let second = join("two")?;
    until("a rebalance that waits for the first member", REBALANCE, || {
        let described = cx.admin.inner().fetch_group_list(Some(&group), PATIENCE).doing("describing the group")?;
        Ok(described.groups().first().is_some_and(|seen| seen.state() == "PreparingRebalance").then_some(()))
    })?;
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    let mut work = vec![first.leave()];
    let started = Instant::now();
    let back = join("one")?;
    await_shares(&[&back, &second], &[&topic], PARTITIONS, REBALANCE)?;
    let took = started.elapsed();
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    await_committed(cx, &group, &topic, PARTITIONS, 150)?;
    work.extend([back.leave(), second.leave()]);
    let wanted: BTreeMap<_, _> = (0..PARTITIONS).map(|p| ((topic.clone(), p), 150)).collect();
    let processed = ensure_all_processed(&work, &wanted)?;
    Ok(format!("{processed}; shared out {:.0} ms after the return", took.as_secs_f64() * 1_000.0))
}

fn static_twice(cx: &Context) -> Verdict {
    let topic = cx.topic("twice", 2)?;
    let group = cx.group("twice");
    let settings = [("group.instance.id", "the-one"), ("session.timeout.ms", "12000")];
    let join = || Member::join(cx, &group, &topic, &settings);
    let first = join()?;
    await_shares(&[&first], &[&topic], 2, REBALANCE)?;
    let second = join()?;
    let (code, text) = until("the first member's end", REBALANCE, || Ok(first.fatal_error()))?;
    ensure_eq!(code, RDKafkaErrorCode::FencedInstanceId, "the first member's fatal error ({text})");
    await_shares(&[&second], &[&topic], 2, REBALANCE)?;
    Ok(text)
}

fn session(cx: &Context) -> Verdict {
    let topic = cx.topic("session", 4)?;
    let group = cx.group("session");
    let settings = |id| [("session.timeout.ms", "6000"), ("group.instance.id", id)];
    let silent = Member::join(cx, &group, &topic, &settings("silent"))?;
    let other = Member::join(cx, &group, &topic, &settings("other"))?;
    await_shares(&[&silent, &other], &[&topic], 4, REBALANCE)?;
    // A member with an instance id says nothing when it goes: for the broker it has died.
    drop(silent);
    let started = Instant::now();
    await_shares(&[&other], &[&topic], 4, REBALANCE)?;
    let took = started.elapsed();
    ensure!(took > Duration::from_secs(2), "replaced after {took:?}, before its session had ended");
    Ok(format!("after {:.1} s of a session of 6 s", took.as_secs_f64()))
}

fn resume(cx: &Context) -> Verdict {
    let topic = cx.topic("resume", 1)?;
    let group = cx.group("resume");
    let producer = producer(cx, &[])?;
    write(&producer, &topic, 0, (0..10).map(|i| i.to_string()))?;
    let first = Member::join(cx, &group, &topic, &[])?;
    until("the first ten", PATIENCE, || Ok((first.processed_count() == 10).then_some(())))?;
    drop(first);
    write(&producer, &topic, 0, (10..15).map(|i| i.to_string()))?;
    let second = consumer(cx, &group, &[])?;
    second.subscribe(&[&topic]).doing("subscribing")?;
    let got = read_count(&second, 5, PATIENCE)?;
    ensure_eq!(got[0].offset, 10, "the first offset of the next member");
    Ok(String::new())
}

fn administration(cx: &Context) -> Verdict {
    let topic = cx.topic("administration", 2)?;
    let group = cx.group("administration");
    let member = Member::join(cx, &group, &topic, &[("client.id", "the-client")])?;
    await_shares(&[&member], &[&topic], 2, REBALANCE)?;
    let list = cx.admin.inner().fetch_group_list(None, PATIENCE).doing("listing groups")?;
    ensure!(list.groups().iter().any(|g| g.name() == group), "the group is not listed");
    let described = cx.admin.inner().fetch_group_list(Some(&group), PATIENCE).doing("describing the group")?;
    let seen = described.groups().first().doing("the group")?;
    ensure_eq!((seen.state(), seen.protocol_type(), seen.protocol()), ("Stable", "consumer", "range"), "the group");
    ensure_eq!(seen.members().len(), 1, "members");
    ensure_eq!(seen.members()[0].client_id(), "the-client", "the member's client id");
    ensure!(seen.members()[0].assignment().is_some_and(|bytes| !bytes.is_empty()), "no assignment is described");
    let delete = || -> Result<Option<RDKafkaErrorCode>, Failure> {
        let results = cx.wait(cx.admin.delete_groups(&[&group], &cx.admin_options())).doing("deleting the group")?;
        Ok(results.into_iter().next().doing("the answer")?.err().map(|(_, code)| code))
    };
    ensure_eq!(delete()?, Some(RDKafkaErrorCode::NonEmptyGroup), "deleting a group with a member");
    write_everywhere(&producer(cx, &[])?, &topic, 2, 3)?;
    until("the records", PATIENCE, || Ok((member.processed_count() == 6).then_some(())))?;
    drop(member);
    until("the empty group", PATIENCE, || {
        let list = cx.admin.inner().fetch_group_list(Some(&group), PATIENCE).doing("describing the group")?;
        Ok(list.groups().first().is_some_and(|g| g.state() == "Empty").then_some(()))
    })?;
    let asker = consumer(cx, &group, &[])?;
    ensure_eq!(committed(&asker, &topic, 0, PATIENCE).doing("committed offset")?, Some(3), "before the deletion");
    ensure_eq!(delete()?, None, "deleting the empty group");
    ensure_eq!(committed(&asker, &topic, 0, PATIENCE).doing("committed offset")?, None, "after the deletion");
    ensure_eq!(delete()?, Some(RDKafkaErrorCode::GroupIdNotFound), "deleting it again");
    Ok(String::new())
}

fn grown(cx: &Context) -> Verdict {
    let topic = cx.topic("grown", 1)?;
    let settings = [("topic.metadata.refresh.interval.ms", "1000")];
    let member = Member::join(cx, &cx.group("grown"), &topic, &settings)?;
    await_shares(&[&member], &[&topic], 1, REBALANCE)?;
    let more = rdkafka::admin::NewPartitions::new(&topic, 3);
    cx.wait(cx.admin.create_partitions([&more], &cx.admin_options())).doing("adding partitions")?;
    await_shares(&[&member], &[&topic], 3, REBALANCE)?;
    Ok(String::new())
}
