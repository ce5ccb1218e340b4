//! One history from one seed: chaos for a while, then nothing goes wrong any more and all must settle, then every promise is
//! looked after. Deterministic: the same plan gives the same history, to the last byte.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};

use runtime::{
    Decider, Written,
    core::partition_of,
    envelope::{Envelope, Position, derived_id},
    message::{Channel, topic},
};
use uuid::Uuid;

use crate::{
    cast::{Cast, Service, Workshop},
    chance::Chance,
    cluster::{Cluster, Log, Place, Reply, Request, Stored},
    driver::{Violation, World},
    faults::{Fault, Faults},
    mutant::Mutant,
    operator,
    registry::Registry,
    trace::Trace,
};

/// When every history begins, in milliseconds since the epoch.
const BEGIN_MS: i64 = 1_760_000_000_000;
/// How many steps a history may take to settle once nothing goes wrong any more.
const SETTLES_WITHIN: u64 = 200_000;
/// The number of what is done by who tends.
const TENDED: usize = 1_000_000;
/// How long that may take, by its own clock.
const SETTLES_WITHIN_MS: i64 = 20 * 60_000;
/// How often hours pass after a history has settled, and how many of them.
const DAYS_PASS_IN: u32 = 5;
const HOURS_AT_A_TIME_MS: i64 = 8 * 3_600_000;
/// An operator comes whenever all is quiet, and after so many rounds in which something was waited for.
const OPERATOR_COMES_EVERY: u32 = 100;

/// Which history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// More faults, for longer.
    pub is_wild: bool,
    /// Only these faults, by number; all that are drawn if `None`.
    pub only_faults: Option<BTreeSet<u32>>,
    /// Only these deeds, by number; all if `None`.
    pub only_deeds: Option<BTreeSet<usize>>,
    /// Chaos ends after this many steps, if not before.
    pub steps: Option<u64>,
    /// A weakening that must be found out.
    pub mutant: Option<Mutant>,
    /// Keep a story for people.
    pub tells: bool,
}

impl Plan {
    /// The whole history of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

/// What came of a history.
#[derive(Debug)]
pub struct History {
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// What happened.
    pub trace: Trace,
    /// The faults that struck, with their numbers.
    pub faults: Vec<(u32, Fault)>,
    /// The deeds of its workload, in words.
    pub deeds: Vec<String>,
    /// Steps of the chaos.
    pub steps: u64,
}

/// A system under test: who takes part and what is done to it.
pub trait Scenario {
    /// Names who takes part, and draws what will be done.
    fn begin(&self, cast: &mut Cast<'_>, chance: &mut Chance) -> Box<dyn Play>;
}

/// One performance of a scenario.
pub trait Play {
    /// What will be done, in words: one line for each deed.
    fn deeds(&self) -> Vec<String>;

    /// Does a deed. Answers false to be called again later: the caller of an edge that heard nothing tries again.
    ///
    /// # Errors
    /// A promise is broken.
    fn act(&mut self, deed: usize, hand: &mut Hand<'_>) -> Result<bool, Violation>;

    /// Does what a person does who looks when nothing moves any more, but may not leave it at that. Answers whether anything was
    /// done; by default nobody looks.
    ///
    /// # Errors
    /// A promise is broken.
    fn tend(&mut self, _hand: &mut Hand<'_>) -> Result<bool, Violation> {
        Ok(false)
    }

    /// Looks after the promises, in the middle or once all is quiet.
    ///
    /// # Errors
    /// One is broken.
    fn check(&mut self, view: &Finale<'_>, trace: &mut Trace) -> Result<(), Violation>;
}

/// What a deed may do.
pub struct Hand<'a> {
    workshop: &'a Workshop,
    world: &'a mut World,
    services: &'a [Box<dyn Service>],
    deed: usize,
}

impl Hand<'_> {
    /// From here on it is another deed that sends.
    pub fn for_deed(&mut self, deed: usize) {
        self.deed = deed;
    }

    /// Something that should be seen now and then has been seen.
    pub fn sometimes(&mut self, what: &'static str) {
        self.world.trace.sometimes(what);
    }

    /// Sends a command to a service's inbox, as its edge does: under an id of the deed's own, so that another try is a repeat.
    /// Answers whether the edge was told that it lies there.
    ///
    /// # Errors
    /// The service does not take part, or the command cannot be written.
    pub fn send<D: Decider>(&mut self, key: &str, command: impl Into<D::Command>) -> Result<bool, Violation>
    where
        D::Command: Written,
    {
        let command: D::Command = command.into();
        let unfit = |what: String| Violation::new("a scenario fits its cast", what);
        let service = self.services.iter().find(|service| service.name() == D::NAME);
        let contract = service.ok_or_else(|| unfit(format!("nobody plays {}", D::NAME)))?.contract();
        let mut value = Vec::new();
        let name = contract.writers().encode(&command, &mut value).map_err(|e| unfit(e.to_string()))?;
        let id = derived_id(&["deed", &self.deed.to_string(), key, name]);
        let source = runtime::envelope::source(self.workshop.system(), "edge");
        let envelope = Envelope::new(id, source, Arc::clone(name), self.world.now_ms).about(key).correlated(key);
        let headers = crate::driver::headers_of(&envelope);
        let stored =
            Stored { timestamp_ms: self.world.now_ms, key: Some(key.as_bytes().to_vec()), value: Some(value), headers };
        let topic = self.world.cluster.topic(&contract.inputs[0]);
        let place = Place { topic, partition: partition_of(key.as_bytes(), contract.partitions) };
        Ok(self.world.append(place, Rc::new(stored), "an edge"))
    }

    /// The committed records of a service's events topic that lie there now.
    pub fn events_of(&self, service: &str) -> Vec<(Place, i64, Rc<Stored>)> {
        let name = topic(self.workshop.system(), service, Channel::Events);
        let log = &self.world.cluster.log;
        let Some(topic) = log.find(&name) else { return Vec::new() };
        let places = log.places().filter(|place| place.topic == topic);
        places.flat_map(|place| log.committed(place).map(move |(offset, stored)| (place, offset, stored))).collect()
    }

    /// Those of them that came since it was last asked; `next` is how far that was, at first nowhere.
    pub fn events_since(&self, service: &str, next: &mut Positions) -> Vec<(Place, i64, Rc<Stored>)> {
        let name = topic(self.workshop.system(), service, Channel::Events);
        let (log, mut news) = (&self.world.cluster.log, Vec::new());
        let Some(topic) = log.find(&name) else { return news };
        for place in log.places().filter(|place| place.topic == topic) {
            let from = next.entry(place).or_default();
            while let Some((offset, stored)) = log.next_committed(place, from) {
                news.push((place, offset, stored));
            }
        }
        news
    }

    /// What histories share.
    #[must_use]
    pub fn workshop(&self) -> &Workshop {
        self.workshop
    }

    /// What the schedule is drawn from.
    pub fn chance(&mut self) -> &mut Chance {
        &mut self.world.chance
    }
}

/// How far each partition was read: the next offset.
pub type Positions = BTreeMap<Place, i64>;

/// What a scenario sees when promises are looked after.
pub struct Finale<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// What histories share.
    pub workshop: &'a Workshop,
    /// Everything has settled: nothing more will happen by itself.
    pub is_quiet: bool,
    /// Where records lie that nobody can read.
    pub poisons: &'a BTreeSet<Position>,
}

impl Finale<'_> {
    /// Every committed record of the topics whose names pass, partition by partition.
    pub fn records(&self, passes: impl Fn(&str) -> bool, mut each: impl FnMut(&Arc<str>, i32, i64, &Stored)) {
        let log = &self.cluster.log;
        for place in log.places().filter(|place| passes(log.name(place.topic))) {
            for (offset, stored) in log.committed(place) {
                each(log.name(place.topic), place.partition, offset, &stored);
            }
        }
    }

    /// Those of them that came since it was last asked; `next` is how far that was, at first nowhere. What is committed stays as it
    /// is, so what is added up record by record need not be added up again.
    pub fn records_since(
        &self,
        next: &mut Positions,
        passes: impl Fn(&str) -> bool,
        mut each: impl FnMut(&Arc<str>, i32, i64, &Stored),
    ) {
        let log = &self.cluster.log;
        for place in log.places().filter(|place| passes(log.name(place.topic))) {
            let from = next.entry(place).or_default();
            while let Some((offset, stored)) = log.next_committed(place, from) {
                each(log.name(place.topic), place.partition, offset, &stored);
            }
        }
    }
}

/// Plays a history.
#[must_use]
pub fn play(scenario: &dyn Scenario, workshop: &Workshop, plan: &Plan) -> History {
    let mut world = World {
        now_ms: BEGIN_MS,
        chance: Chance::new(plan.seed, 1),
        faults: Faults::draw(plan.seed, plan.is_wild, plan.only_faults.clone()),
        cluster: Cluster::new(1, plan.mutant),
        trace: Trace::new(plan.tells),
        registry: Registry::new(&workshop.table),
        mutant: plan.mutant,
        poisons: BTreeSet::new(),
        operated: 0,
    };
    let (mut deeds, mut steps) = (Vec::new(), 0);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut stage = Stage::begin(scenario, workshop, &mut world, plan)?;
        deeds = stage.play.deeds();
        let lived = stage.live(&mut world, plan);
        steps = stage.steps;
        lived
    }));
    let violation = match played {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => Some(Violation::new("nothing panics", panic_text(panic.as_ref()))),
    };
    History { violation, faults: world.faults.fired().to_vec(), trace: world.trace, deeds, steps }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".to_owned())
}

struct Stage<'a> {
    workshop: &'a Workshop,
    services: Vec<Box<dyn Service>>,
    actors: Vec<(usize, usize)>,
    play: Box<dyn Play>,
    todo: VecDeque<usize>,
    steps: u64,
    contents: Contents,
}

impl<'a> Stage<'a> {
    fn begin(
        scenario: &dyn Scenario,
        workshop: &'a Workshop,
        world: &mut World,
        plan: &Plan,
    ) -> Result<Self, Violation> {
        let partitions = *world.chance.pick(&[1, 2, 2, 3]);
        world.cluster = Cluster::new(partitions, plan.mutant);
        let mut cast = Cast { workshop, world, partitions, services: Vec::new(), failed: Cell::default() };
        let play = scenario.begin(&mut cast, &mut Chance::new(plan.seed, 3));
        if let Some(violation) = cast.failed.take() {
            return Err(violation);
        }
        let services = cast.services;
        let actors = services
            .iter()
            .enumerate()
            .flat_map(|(at, service)| (0..service.processes()).map(move |process| (at, process)))
            .collect();
        let is_wanted = |deed: &usize| plan.only_deeds.as_ref().is_none_or(|only| only.contains(deed));
        let todo = (0..play.deeds().len()).filter(is_wanted).collect();
        Ok(Self { workshop, services, actors, play, todo, steps: 0, contents: Contents::default() })
    }

    fn live(&mut self, world: &mut World, plan: &Plan) -> Result<(), Violation> {
        let drawn = (300 + world.chance.below(3_500)) * if plan.is_wild { 3 } else { 1 };
        let goes_on_in_chaos = world.chance.permille(200);
        let chaos = plan.steps.unwrap_or(u64::MAX).min(if goes_on_in_chaos { drawn * 2 } else { drawn });
        while self.steps < chaos {
            self.steps += 1;
            self.step(world)?;
        }
        self.check(world, false)?;
        if goes_on_in_chaos {
            return Ok(());
        }
        self.settle(world)?;
        self.check(world, true)?;
        if world.chance.permille(250) {
            self.let_days_pass(world)?;
        }
        if world.chance.permille(250) { self.rebuild(world) } else { Ok(()) }
    }

    /// Days pass in which nothing happens: brokers expire the offsets that are not committed again.
    fn let_days_pass(&mut self, world: &mut World) -> Result<(), Violation> {
        for _ in 0..DAYS_PASS_IN {
            world.now_ms += HOURS_AT_A_TIME_MS;
            for group in 0..world.cluster.groups() {
                let now_ms = world.now_ms;
                world.cluster.group(group).keep_alive(now_ms);
            }
            self.settle(world)?;
            for group in 0..world.cluster.groups() {
                let now_ms = world.now_ms;
                world.cluster.group(group).expire_offsets(now_ms);
                let expired = world.cluster.group(group).expired();
                if expired > 0 {
                    let what = format!("{expired} offsets of {} expired", self.services[group].name());
                    return Err(Violation::new("offsets of a group that lives are committed again in time", what));
                }
            }
        }
        world.trace.sometimes("days pass, and every offset is committed again");
        self.check(world, true)
    }

    /// One step of whoever's turn it is.
    fn step(&mut self, world: &mut World) -> Result<bool, Violation> {
        world.now_ms += world.chance.within(0..=4);
        world.trace.at(world.now_ms - BEGIN_MS);
        world.registry.at(world.now_ms);
        let share = world.chance.below(100);
        if share < 14 {
            world.cluster.step(world.now_ms, &mut world.chance, &mut world.trace);
            return Ok(world.cluster.has_work(world.now_ms));
        }
        if share < 18 {
            self.upset(world)?;
            return self.act(world);
        }
        let (service, process) = *world.chance.pick(&self.actors);
        if share < 45 {
            self.services[service].step_beside(process, world)
        } else {
            self.services[service].step(process, world)
        }
    }

    /// Faults that befall nobody in particular.
    fn upset(&mut self, world: &mut World) -> Result<(), Violation> {
        if world.strikes(Fault::Leap, "everybody") {
            world.now_ms += world.faults.extent().within(500..=6_000);
        }
        if world.strikes(Fault::RegistryDown, "the registry") {
            let until_ms = world.now_ms + world.faults.extent().within(300..=6_000);
            world.registry.is_down_until(until_ms);
        }
        if world.strikes(Fault::RegistryLag, "the registry") {
            let schemas = world.registry.schemas();
            let schema = u32::try_from(world.faults.extent().index(schemas)).unwrap_or(0) + 1;
            let until_ms = world.now_ms + world.faults.extent().within(100..=1_500);
            world.registry.lags_until(schema, until_ms);
        }
        if world.strikes(Fault::OffsetsLost, "a group") {
            let groups = world.cluster.groups();
            let group = world.faults.extent().index(groups);
            world.cluster.group(group).forget_offsets();
        }
        if world.strikes(Fault::Poison, "an inbox") {
            self.poison(world);
        }
        let service = world.faults.extent().index(self.services.len());
        if world.strikes(Fault::Mended, self.services[service].name()) {
            self.services[service].mend();
        }
        if world.chance.permille(20) {
            operator::act(&*self.services[service], self.workshop, world, false)?;
        }
        Ok(())
    }

    fn poison(&mut self, world: &mut World) {
        let service = &self.services[world.faults.extent().index(self.services.len())];
        let (inbox, partitions) = (Arc::clone(&service.contract().inputs[0]), service.contract().partitions);
        let topic = world.cluster.topic(&inbox);
        let key = poisoned_key(world, topic);
        let partition = match &key {
            Some(key) => partition_of(key, partitions),
            None => i32::try_from(world.faults.extent().index(usize::try_from(partitions).unwrap_or(1))).unwrap_or(0),
        };
        let value = match world.faults.extent().below(3) {
            0 => Some(b"no frame at all".to_vec()),
            1 => None,
            // A schema that nobody has registered: waited for at first, then given up.
            _ => Some(vec![0, 0, 0x7f, 0xff, 0xff, 1, 2, 3]),
        };
        let record = Rc::new(Stored { timestamp_ms: world.now_ms, key, value, headers: Vec::new() });
        let request = Request::Append { place: Place { topic, partition }, record };
        if let Reply::Done { end } = world.cluster.serve(&request, world.now_ms, &mut world.trace) {
            world.poisons.insert(Position::new(inbox, partition, end - 1));
        }
    }

    /// The next deed.
    fn act(&mut self, world: &mut World) -> Result<bool, Violation> {
        let Some(deed) = self.todo.pop_front() else { return Ok(false) };
        let mut hand = Hand { workshop: self.workshop, world, services: &self.services, deed };
        if !self.play.act(deed, &mut hand)? {
            self.todo.push_back(deed);
        }
        Ok(true)
    }

    /// Nothing goes wrong any more: everything must come to an end.
    fn settle(&mut self, world: &mut World) -> Result<(), Violation> {
        world.faults.heal();
        world.registry.heal();
        for service in &mut self.services {
            service.wake(world);
            service.mend();
        }
        world.trace.tell(None, || "HEALED: nothing goes wrong any more".to_owned());
        let (begun_ms, mut idle, mut rounds) = (world.now_ms, 0, 0);
        for step in 0..SETTLES_WITHIN {
            idle = if self.step(world)? { 0 } else { idle + 1 };
            if idle < 3 * self.actors.len() + 20 {
                continue;
            }
            idle = 0;
            if self.unrest(world).is_none() {
                if self.put_right(world)? {
                    continue;
                }
                let mut hand = Hand { workshop: self.workshop, world, services: &self.services, deed: TENDED };
                if !self.play.tend(&mut hand)? {
                    return Ok(());
                }
                continue;
            }
            // An effect of an entity that waits rests until somebody comes and puts right what it waits for.
            rounds += 1;
            if rounds % OPERATOR_COMES_EVERY == 0 && self.put_right(world)? {
                continue;
            }
            if world.now_ms - begun_ms > SETTLES_WITHIN_MS {
                break;
            }
            self.leap_to_next(world);
            world.trace.mix_number(step);
        }
        let why = self.unrest(world).unwrap_or_else(|| "it only goes on and on".to_owned());
        Err(Violation::new("everything settles once nothing goes wrong", why))
    }

    /// An operator acts on what is parked. Answers whether anything was.
    fn put_right(&self, world: &mut World) -> Result<bool, Violation> {
        for service in &self.services {
            if operator::act(&**service, self.workshop, world, true)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn unrest(&self, world: &World) -> Option<String> {
        if let Some(deed) = self.todo.front() {
            return Some(format!("deed {deed} is not done"));
        }
        let unrest = self.services.iter().find_map(|service| service.unrest(world));
        unrest.or_else(|| world.cluster.unrest())
    }

    fn leap_to_next(&self, world: &mut World) {
        let services = self.services.iter().filter_map(|service| service.next_due(world));
        let next_ms = services.chain(world.cluster.next_due()).filter(|at_ms| *at_ms > world.now_ms).min();
        world.now_ms = next_ms.unwrap_or(world.now_ms + 50).min(world.now_ms + 1_000);
    }

    fn check(&mut self, world: &mut World, is_quiet: bool) -> Result<(), Violation> {
        for service in &self.services {
            service.check(world, is_quiet)?;
        }
        self.contents.catch_up(&world.cluster.log)?;
        let view = Finale { cluster: &world.cluster, workshop: self.workshop, is_quiet, poisons: &world.poisons };
        self.play.check(&view, &mut world.trace)
    }

    /// Every store is emptied and every process started again: nothing that anybody can see may come of it.
    fn rebuild(&mut self, world: &mut World) -> Result<(), Violation> {
        // A group that has lost its offsets reads again what led to no event, and forwards it once more.
        let reads_again = world.trace.seen().contains(Fault::OffsetsLost.name());
        let ends = |world: &World| -> Vec<i64> {
            let log = &world.cluster.log;
            let counts = |place: &Place| !reads_again || !log.name(place.topic).ends_with(".inbox");
            log.places().filter(counts).map(|place| log.high_watermark(place)).collect()
        };
        let asked = |services: &[Box<dyn Service>]| services.iter().map(|service| service.asked()).sum::<u64>();
        let before = (ends(world), asked(&self.services));
        world.trace.tell(None, || "WIPED: every store is emptied, every process starts again".to_owned());
        for service in &mut self.services {
            service.wipe(world);
        }
        self.settle(world)?;
        for service in &self.services {
            service.check(world, true)?;
        }
        if before.0 != ends(world) {
            return Err(Violation::new("a rebuild says nothing", "something was appended after the stores were wiped"));
        }
        if before.1 != asked(&self.services) {
            return Err(Violation::new(
                "a rebuild asks nothing",
                "an effect was carried out after the stores were wiped",
            ));
        }
        world.trace.sometimes("everything is rebuilt from the logs");
        Ok(())
    }
}

/// A key for a record that nobody can read: mostly one of an entity that has real work to do, sometimes a stranger's, or none.
fn poisoned_key(world: &mut World, inbox: usize) -> Option<Vec<u8>> {
    if world.faults.extent().permille(200) {
        return None;
    }
    let log = &world.cluster.log;
    let places = log.places().filter(|place| place.topic == inbox);
    let keys: Vec<Vec<u8>> =
        places.flat_map(|place| log.committed(place)).filter_map(|(_, stored)| stored.key.clone()).collect();
    let at = world.faults.extent().index(keys.len() + 1);
    Some(keys.into_iter().nth(at).unwrap_or_else(|| b"stranger".to_vec()))
}

/// What lies under which id.
#[derive(Default)]
struct Contents {
    next: Positions,
    known: HashMap<Uuid, (Rc<Stored>, Place, i64)>,
}

impl Contents {
    /// No id has two contents, whatever topic it lies on.
    fn catch_up(&mut self, log: &Log) -> Result<(), Violation> {
        for place in log.places() {
            let from = self.next.entry(place).or_default();
            while let Some((offset, stored)) = log.next_committed(place, from) {
                let Some(id) = stored.header("ce_id").and_then(|id| Uuid::parse_str(id).ok()) else { continue };
                let (known, first, at) = self.known.entry(id).or_insert_with(|| (Rc::clone(&stored), place, offset));
                if known.value != stored.value {
                    let name = |place: &Place| format!("{}/{}", log.name(place.topic), place.partition);
                    let what = format!("{id} at {}/{at} and at {}/{offset}", name(first), name(&place));
                    return Err(Violation::new("an id has one content", what));
                }
            }
        }
        Ok(())
    }
}
