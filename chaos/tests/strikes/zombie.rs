//! A zombie adds nothing: an instance is frozen past its session in the middle of its work, another one takes its partition over, and
//! when the frozen one goes on, with everything that it had under way, not one record of it becomes visible behind its successor's.
//!
//! The proof is what lies on the topics: which producer every committed batch is from, every id once, every sequence without a gap.
//! Whoever goes on is kept out of its group meanwhile, and kept from nothing else: it owns nothing for sure, so whatever it adds is
//! too much. `DACAPO_FREEZES=20` asks for more rounds than two.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use chaos::{
    fleet::Member,
    ground::Ground,
    load::Load,
    plan::{Instance, STRUCK},
    proxy::Line,
    stage::{Settings, Stage},
};

use super::{LOOK, PATIENCE, batches, executable, named, system, wait_until};

/// Orders a second.
const RATE: f64 = 15.0;
/// Batches that a successor writes after the zombie is back, before the zombie counts as harmless.
const BATCHES_AFTER: usize = 20;

/// What of an instance stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frozen {
    /// The process: requests that it wrote already reach the broker.
    Process,
    /// The process and its connections: what it wrote reaches the broker when its successor works already.
    ProcessAndConnections,
}

struct Test {
    stage: Stage,
    kafka: SocketAddr,
    /// What only the owner of the partition writes in transactions.
    topics: [String; 3],
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_instance_adds_nothing_once_another_has_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let rounds: u32 = std::env::var("DACAPO_FREEZES").ok().and_then(|freezes| freezes.parse().ok()).unwrap_or(2);
    let (ground, session_ms) = match named() {
        Some((bootstrap, registry)) => (Ground::foreign(&bootstrap, &registry).await.unwrap(), 6_000),
        None => (Ground::embedded(&executable(), folder.path()).await.unwrap(), 2_500),
    };
    let system = system(folder.path());
    let kafka = ground.kafka();
    let settings = Settings {
        executable: executable(),
        folder: folder.path().to_owned(),
        system: system.clone(),
        partitions: 1,
        session_ms,
    };
    let stage = Stage::set(settings, &cast(), ground).await.unwrap();
    let topics =
        [format!("{system}.warehouse.events"), format!("{system}.warehouse.inbox"), format!("dlq.{system}.warehouse")];
    let test = Test { stage, kafka, topics };
    let load = Load::start(Arc::clone(&test.stage.fleet), 1, RATE);
    for round in 0..rounds {
        let frozen = if round % 2 == 0 { Frozen::Process } else { Frozen::ProcessAndConnections };
        test.round(frozen).await;
    }
    let answers = load.stop(PATIENCE).await;
    // Every id once, every sequence without a gap, every order in one end.
    let verdict = test.stage.settle(&answers, PATIENCE).await.unwrap();
    assert!(verdict.findings.is_empty(), "{:#?}", verdict.findings);
    assert!(verdict.balance.ends.completed > 0);
}

/// One instance of each service, two of the warehouse.
fn cast() -> Vec<Instance> {
    let one = |service| Instance { service, number: 0, is_named: true };
    STRUCK.into_iter().map(one).chain([Instance { number: 1, ..one("warehouse") }]).collect()
}

impl Test {
    async fn round(&self, frozen: Frozen) {
        let owner = self.owner().await;
        // By a batch that it has written just now: what lies there already may be of whoever owned the partition before.
        let so_far = self.read(&self.topics[0], 0).await.len();
        let zombie = self.next_batches(0, so_far + 1).await.last().unwrap().producer;
        self.freeze(&owner, frozen).await;
        let taken_over = self.first_batch_not_of(zombie).await;
        // Its successor decides only when nothing of it is open any more, so this is all that it ever said as the owner.
        let as_owner = self.visible_of(zombie).await;
        // It goes on with whatever it had under way; requests that it wrote long ago reach the broker only now.
        owner.line(Line::Expelled);
        let joins = owner.door().joins();
        owner.process().await.thaw().unwrap();
        // Once it asks to be let in again it has dealt with its loss; what it had to write is written or given up.
        wait_until("the zombie asks to join again", || owner.door().joins() > joins).await;
        let so_far = self.next_batches(taken_over.offset, 1).await.len();
        self.next_batches(taken_over.offset, so_far + BATCHES_AFTER).await;
        let as_zombie = self.visible_of(zombie).await;
        assert_eq!(as_zombie, as_owner, "{frozen:?}: committed batches of producer {zombie} on {:?}", self.topics);
        owner.line(Line::Open);
        owner.wait_until_ready(PATIENCE).await.unwrap();
    }

    /// How many batches of a producer's transactions are visible on each topic that the owner alone writes to so. Answers of effects
    /// come in outside transactions, and are facts whoever got them.
    async fn visible_of(&self, producer: i64) -> Vec<usize> {
        let mut visible = Vec::new();
        for topic in &self.topics {
            let shown = self.read(topic, 0).await;
            visible.push(shown.iter().filter(|batch| batch.is_transactional && batch.producer == producer).count());
        }
        visible
    }

    /// The one that decides: it alone sends more and more.
    async fn owner(&self) -> Arc<Member> {
        let deadline = Instant::now() + PATIENCE;
        let of_warehouse = |member: &Arc<Member>| member.instance.service == "warehouse";
        let members: Vec<_> = self.stage.fleet.members().into_iter().filter(of_warehouse).collect();
        let mut before = [members[0].sent().await, members[1].sent().await];
        loop {
            let now = [members[0].sent().await, members[1].sent().await];
            match [now[0] > before[0], now[1] > before[1]] {
                [true, false] => return Arc::clone(&members[0]),
                [false, true] => return Arc::clone(&members[1]),
                _ => before = now,
            }
            assert!(Instant::now() < deadline, "nobody owns the partition");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn freeze(&self, owner: &Member, frozen: Frozen) {
        if frozen == Frozen::ProcessAndConnections {
            owner.line(Line::Frozen);
        }
        owner.process().await.freeze().unwrap();
    }

    /// Committed batches of the events topic, from an offset on, once there are so many.
    async fn next_batches(&self, from: i64, at_least: usize) -> Vec<batches::Batch> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.read(&self.topics[0], from).await;
            if shown.len() >= at_least {
                return shown;
            }
            assert!(Instant::now() < deadline, "{} of {at_least} batches came from {from} on", shown.len());
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn first_batch_not_of(&self, producer: i64) -> batches::Batch {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.read(&self.topics[0], 0).await;
            let last_of_owner = shown.iter().rposition(|batch| batch.producer == producer).unwrap();
            if let Some(taken_over) = shown.get(last_of_owner + 1) {
                return *taken_over;
            }
            assert!(Instant::now() < deadline, "nobody took the partition over");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn read(&self, topic: &str, from: i64) -> Vec<batches::Batch> {
        let (kafka, topic) = (self.kafka, topic.to_owned());
        tokio::task::spawn_blocking(move || batches::read(kafka, &topic, from)).await.unwrap()
    }
}
