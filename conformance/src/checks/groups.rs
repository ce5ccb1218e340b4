//! Classic consumer groups: ownership of partitions, committed offsets, returning members.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::clients::{TestProducer, committed, consumer, producer, read_count, write};
use crate::context::{CheckContext, REQUEST_TIMEOUT, wait_until};
use crate::members::{REBALANCE_TIMEOUT, TestMember, await_committed, await_shares, ensure_all_processed};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Groups, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("range: through joins and leaves each partition has one owner and each record is processed", range),
    check(
        "cooperative-sticky: through joins and leaves each partition has one owner and each record is processed",
        sticky,
    ),
    check("a cooperative join does not revoke the partitions that stay", cooperative_keeps),
    check("a returning static member gets its partitions back without a rebalance", static_return),
    check(
        "range: every partition has an owner after a static member dies in a rebalance and returns",
        static_return_in_rebalance,
    ),
    check("a second member with the same instance id fences the first", static_twice),
    check("a member that dies is replaced after its session expires", session),
    check("a group continues at its committed offsets", resume),
    check("groups are listed, described and deleted", administration),
    check("new partitions of a subscribed topic get an owner", grown),
];

fn write_everywhere(producer: &TestProducer, topic: &str, partitions: i32, each: i32) -> Result<(), CheckFailure> {
    for partition in 0..partitions {
        write(producer, topic, partition, (0..each).map(|i| i.to_string()))?;
    }
    Ok(())
}

fn joins_and_leaves(cx: &CheckContext, assignor: &str) -> CheckResult {
    const PARTITIONS: i32 = 6;
    let topic = cx.topic("work", PARTITIONS)?;
    let group = cx.group("workers");
    let producer = producer(cx, &[])?;
    let settings = [("partition.assignment.strategy", assignor)];
    let join = || TestMember::join(cx, &group, &topic, &settings);
    let await_assignment = |members: &[&TestMember]| await_shares(members, &[&topic], PARTITIONS, REBALANCE_TIMEOUT);
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    let first = join()?;
    await_assignment(&[&first])?;
    let second = join()?;
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    await_assignment(&[&first, &second])?;
    let third = join()?;
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    await_assignment(&[&first, &second, &third])?;
    let mut histories = vec![first.leave()];
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    await_assignment(&[&second, &third])?;
    await_committed(cx, &group, &[&topic], PARTITIONS, 200)?;
    histories.extend([second.leave(), third.leave()]);
    let expected: BTreeMap<_, _> = (0..PARTITIONS).map(|p| ((topic.clone(), p), 200)).collect();
    ensure_all_processed(&histories, &expected)
}

fn range(cx: &CheckContext) -> CheckResult {
    joins_and_leaves(cx, "range")
}

fn sticky(cx: &CheckContext) -> CheckResult {
    joins_and_leaves(cx, "cooperative-sticky")
}

fn cooperative_keeps(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("keeps", 4)?;
    let group = cx.group("keeps");
    let settings = [("partition.assignment.strategy", "cooperative-sticky")];
    let first = TestMember::join(cx, &group, &topic, &settings)?;
    await_shares(&[&first], &[&topic], 4, REBALANCE_TIMEOUT)?;
    let before = first.owned();
    let second = TestMember::join(cx, &group, &topic, &settings)?;
    await_shares(&[&first, &second], &[&topic], 4, REBALANCE_TIMEOUT)?;
    ensure!(first.owned().is_subset(&before), "the first member got others: {:?}", first.owned());
    Ok(String::new())
}

fn static_return(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("static", 4)?;
    let group = cx.group("static");
    // Longer than a return takes on a busy machine. The group can be removed only after the sessions have ended.
    let settings = |id| [("group.instance.id", id), ("session.timeout.ms", "12000")];
    let join = |id| TestMember::join(cx, &group, &topic, &settings(id));
    let (first, second) = (join("one")?, join("two")?);
    await_shares(&[&first, &second], &[&topic], 4, REBALANCE_TIMEOUT)?;
    let (first_owned, second_owned, before) = (first.owned(), second.owned(), second.rebalances());
    drop(first);
    let started = Instant::now();
    let returned = join("one")?;
    wait_until("the returned member's partitions", REBALANCE_TIMEOUT, || {
        Ok((returned.owned() == first_owned).then_some(()))
    })?;
    let took = started.elapsed();
    ensure_eq!(second.owned(), second_owned, "the other member's partitions");
    ensure_eq!(second.rebalances(), before, "the other member's rebalances");
    write_everywhere(&producer(cx, &[])?, &topic, 4, 5)?;
    wait_until("the records", REQUEST_TIMEOUT, || {
        Ok((returned.processed_count() + second.processed_count() == 20).then_some(()))
    })?;
    Ok(format!("back after {:.0} ms", took.as_secs_f64() * 1_000.0))
}

fn static_return_in_rebalance(cx: &CheckContext) -> CheckResult {
    const PARTITIONS: i32 = 4;
    let topic = cx.topic("in-rebalance", PARTITIONS)?;
    let group = cx.group("in-rebalance");
    let producer = producer(cx, &[])?;
    let join = |id| {
        let static_member = [("group.instance.id", id), ("session.timeout.ms", "12000")];
        TestMember::join(
            cx,
            &group,
            &topic,
            &[static_member.as_slice(), &[("partition.assignment.strategy", "range")]].concat(),
        )
    };
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    let mut first = join("one")?;
    await_shares(&[&first], &[&topic], PARTITIONS, REBALANCE_TIMEOUT)?;
    // The group waits for this member to release its partitions, so the member dies in the middle of the rebalance.
    first.stop();
    let second = join("two")?;
    wait_until("a rebalance that waits for the first member", REBALANCE_TIMEOUT, || {
        let described =
            cx.admin.inner().fetch_group_list(Some(&group), REQUEST_TIMEOUT).context("describing the group")?;
        Ok(described.groups().first().is_some_and(|observed| observed.state() == "PreparingRebalance").then_some(()))
    })?;
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    let mut histories = vec![first.leave()];
    let started = Instant::now();
    let returned = join("one")?;
    await_shares(&[&returned, &second], &[&topic], PARTITIONS, REBALANCE_TIMEOUT)?;
    let took = started.elapsed();
    write_everywhere(&producer, &topic, PARTITIONS, 50)?;
    await_committed(cx, &group, &[&topic], PARTITIONS, 150)?;
    histories.extend([returned.leave(), second.leave()]);
    let expected: BTreeMap<_, _> = (0..PARTITIONS).map(|p| ((topic.clone(), p), 150)).collect();
    let processed = ensure_all_processed(&histories, &expected)?;
    Ok(format!("{processed}; assigned {:.0} ms after the return", took.as_secs_f64() * 1_000.0))
}

fn static_twice(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("twice", 2)?;
    let group = cx.group("twice");
    let settings = [("group.instance.id", "the-one"), ("session.timeout.ms", "12000")];
    let join = || TestMember::join(cx, &group, &topic, &settings);
    let first = join()?;
    await_shares(&[&first], &[&topic], 2, REBALANCE_TIMEOUT)?;
    let second = join()?;
    let (code, text) = wait_until("the first member's end", REBALANCE_TIMEOUT, || Ok(first.fatal_error()))?;
    ensure_eq!(code, RDKafkaErrorCode::FencedInstanceId, "the first member's fatal error ({text})");
    await_shares(&[&second], &[&topic], 2, REBALANCE_TIMEOUT)?;
    Ok(text)
}

fn session(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("session", 4)?;
    let group = cx.group("session");
    let settings = |id| [("session.timeout.ms", "6000"), ("group.instance.id", id)];
    let dead = TestMember::join(cx, &group, &topic, &settings("dead"))?;
    let other = TestMember::join(cx, &group, &topic, &settings("other"))?;
    await_shares(&[&dead, &other], &[&topic], 4, REBALANCE_TIMEOUT)?;
    // A member with an instance id sends no leave: for the broker it has died.
    drop(dead);
    let started = Instant::now();
    await_shares(&[&other], &[&topic], 4, REBALANCE_TIMEOUT)?;
    let took = started.elapsed();
    ensure!(took > Duration::from_secs(2), "replaced after {took:?}, before its session expired");
    Ok(format!("after {:.1} s of a session of 6 s", took.as_secs_f64()))
}

fn resume(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("resume", 1)?;
    let group = cx.group("resume");
    let producer = producer(cx, &[])?;
    write(&producer, &topic, 0, (0..10).map(|i| i.to_string()))?;
    let first = TestMember::join(cx, &group, &topic, &[])?;
    wait_until("the first ten", REQUEST_TIMEOUT, || Ok((first.processed_count() == 10).then_some(())))?;
    drop(first);
    write(&producer, &topic, 0, (10..15).map(|i| i.to_string()))?;
    let second = consumer(cx, &group, &[])?;
    second.subscribe(&[&topic]).context("subscribing")?;
    let records = read_count(&second, 5, REQUEST_TIMEOUT)?;
    ensure_eq!(records[0].offset, 10, "the first offset of the next member");
    Ok(String::new())
}

fn administration(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("administration", 2)?;
    let group = cx.group("administration");
    let member = TestMember::join(cx, &group, &topic, &[("client.id", "the-client")])?;
    await_shares(&[&member], &[&topic], 2, REBALANCE_TIMEOUT)?;
    let list = cx.admin.inner().fetch_group_list(None, REQUEST_TIMEOUT).context("listing groups")?;
    ensure!(list.groups().iter().any(|g| g.name() == group), "the group is not listed");
    let described = cx.admin.inner().fetch_group_list(Some(&group), REQUEST_TIMEOUT).context("describing the group")?;
    let observed = described.groups().first().context("the group")?;
    ensure_eq!(
        (observed.state(), observed.protocol_type(), observed.protocol()),
        ("Stable", "consumer", "range"),
        "the group"
    );
    ensure_eq!(observed.members().len(), 1, "members");
    ensure_eq!(observed.members()[0].client_id(), "the-client", "the member's client id");
    ensure!(observed.members()[0].assignment().is_some_and(|bytes| !bytes.is_empty()), "no assignment is described");
    let delete = || -> Result<Option<RDKafkaErrorCode>, CheckFailure> {
        let results = cx.wait(cx.admin.delete_groups(&[&group], &cx.admin_options())).context("deleting the group")?;
        Ok(results.into_iter().next().context("the response")?.err().map(|(_, code)| code))
    };
    ensure_eq!(delete()?, Some(RDKafkaErrorCode::NonEmptyGroup), "deleting a group with a member");
    write_everywhere(&producer(cx, &[])?, &topic, 2, 3)?;
    wait_until("the records", REQUEST_TIMEOUT, || Ok((member.processed_count() == 6).then_some(())))?;
    drop(member);
    wait_until("the empty group", REQUEST_TIMEOUT, || {
        let list = cx.admin.inner().fetch_group_list(Some(&group), REQUEST_TIMEOUT).context("describing the group")?;
        Ok(list.groups().first().is_some_and(|g| g.state() == "Empty").then_some(()))
    })?;
    let client = consumer(cx, &group, &[])?;
    ensure_eq!(
        committed(&client, &topic, 0, REQUEST_TIMEOUT).context("committed offset")?,
        Some(3),
        "before the deletion"
    );
    ensure_eq!(delete()?, None, "deleting the empty group");
    ensure_eq!(committed(&client, &topic, 0, REQUEST_TIMEOUT).context("committed offset")?, None, "after the deletion");
    ensure_eq!(delete()?, Some(RDKafkaErrorCode::GroupIdNotFound), "deleting it again");
    Ok(String::new())
}

fn grown(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("grown", 1)?;
    let settings = [("topic.metadata.refresh.interval.ms", "1000")];
    let member = TestMember::join(cx, &cx.group("grown"), &topic, &settings)?;
    await_shares(&[&member], &[&topic], 1, REBALANCE_TIMEOUT)?;
    let more = rdkafka::admin::NewPartitions::new(&topic, 3);
    cx.wait(cx.admin.create_partitions([&more], &cx.admin_options())).context("adding partitions")?;
    await_shares(&[&member], &[&topic], 3, REBALANCE_TIMEOUT)?;
    Ok(String::new())
}
