//! The simulation as a program: plays seeds, shows what broke and how to see it again, and proves that it is not toothless.

use std::{collections::BTreeSet, io, num::NonZeroUsize, process::ExitCode, time::Duration};

use clap::Parser;
use simulation::{
    History, Mutant, Plan, Workshop,
    campaign::{Campaign, Verdict, run},
    musiccorp::{MusicCorp, SEEN_SOMETIMES, SYSTEM},
    play, shrink,
};

/// Histories that a failing one is shrunk by, at most.
const SHRINK_TRIES: usize = 400;
/// From this many seeds on, everything that should be seen now and then must have been.
const SEEDS_TO_SEE_ALL: u64 = 10_000;

/// Plays MusicCorp from seeds: crashes, zombies, late and lost requests, and every promise looked after.
#[derive(Debug, Parser)]
#[command(name = "simulation")]
struct Args {
    /// How many seeds to play
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Begin no further seed after this many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// Play each seed twice and hold the traces against each other
    #[arg(long)]
    twice: bool,
    /// More faults, for longer: what a night is for
    #[arg(long)]
    wild: bool,
    /// Prove that every weakening of the protocol is found out within its budget of seeds
    #[arg(long)]
    mutants: bool,
    /// Weaken the protocol in this way
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Play this one seed and tell its story
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// With --seed: leave out every fault but these
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    only_faults: Option<Vec<u32>>,
    /// With --seed: leave out every deed but these
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    only_deeds: Option<Vec<usize>>,
    /// With --seed: end the chaos after this many steps
    #[arg(long)]
    steps: Option<u64>,
    /// With --seed: tell only what belongs to this saga, such as an order's id
    #[arg(long, value_name = "ID")]
    saga: Option<String>,
    /// How many threads; each seed is played on one
    #[arg(long, default_value_t = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))]
    threads: NonZeroUsize,
}

fn mutant(name: &str) -> Result<Mutant, String> {
    let names: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
    Mutant::find(name).ok_or_else(|| format!("there are {}", names.join(", ")))
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A decider that panics is caught and told as a broken promise.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = io::stdout().lock();
    let done = match (args.seed, args.mutants) {
        (Some(seed), _) => tell(&args, seed, &mut out),
        (None, true) => prove(&args, &mut out),
        (None, false) => search(&args, &mut out),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        // Nobody reads any more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn campaign(args: &Args) -> Campaign {
    Campaign {
        for_at_most: args.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
        twice: args.twice,
        is_wild: args.wild,
        mutant: args.mutant,
        threads: args.threads,
        ..Campaign::of(args.from, if args.minutes.is_some() { u64::MAX - args.from } else { args.seeds })
    }
}

fn search(args: &Args, out: &mut impl io::Write) -> io::Result<bool> {
    let campaign = campaign(args);
    let verdict = run(&MusicCorp, SYSTEM, &campaign);
    writeln!(
        out,
        "{} seeds from {}, {} steps, {} faults; {:.0} histories a second and core",
        verdict.seeds,
        args.from,
        verdict.steps,
        verdict.faults,
        verdict.rate(&campaign)
    )?;
    if let Some((seed, what)) = &verdict.broken {
        writeln!(out, "\nseed {seed} breaks a promise: {what}")?;
        return report(args, *seed, out).map(|()| false);
    }
    if let Some(seed) = verdict.differs {
        writeln!(out, "\nseed {seed} goes another way the second time: something in it is not drawn from the seed")?;
        return Ok(false);
    }
    let is_complete = args.mutant.is_none() && verdict.seeds >= SEEDS_TO_SEE_ALL;
    let unseen = unseen(&verdict);
    for (what, times) in verdict.sightings.iter() {
        writeln!(out, "  {times:>8}  {what}")?;
    }
    for what in &unseen {
        writeln!(out, "  {:>8}  {what}", "NEVER")?;
    }
    Ok(!is_complete || unseen.is_empty())
}

fn unseen(verdict: &Verdict) -> Vec<&'static str> {
    SEEN_SOMETIMES.iter().copied().filter(|what| verdict.sightings.of(what) == 0).collect()
}

/// Shrinks a failing seed and shows the line that plays it again.
fn report(args: &Args, seed: u64, out: &mut impl io::Write) -> io::Result<()> {
    let workshop = Workshop::new(SYSTEM);
    let plan = Plan { mutant: args.mutant, is_wild: args.wild, ..Plan::of(seed) };
    let (plan, history) = shrink(&MusicCorp, &workshop, &plan, SHRINK_TRIES);
    let what = history.violation.as_ref().map(ToString::to_string).unwrap_or_default();
    writeln!(out, "shrunk to {} faults, {} steps: {what}", history.faults.len(), history.steps)?;
    writeln!(out, "see it again: {}", line(&plan))
}

/// The one line that plays a plan.
fn line(plan: &Plan) -> String {
    let list = |numbers: Vec<String>| numbers.join(",");
    let mut line = format!("cargo run --release -p simulation -- --seed {}", plan.seed);
    if plan.is_wild {
        line += " --wild";
    }
    if let Some(faults) = &plan.only_faults {
        line += &format!(" --only-faults={}", list(faults.iter().map(ToString::to_string).collect()));
    }
    if let Some(deeds) = &plan.only_deeds {
        line += &format!(" --only-deeds={}", list(deeds.iter().map(ToString::to_string).collect()));
    }
    if let Some(steps) = plan.steps {
        line += &format!(" --steps {steps}");
    }
    if let Some(mutant) = plan.mutant {
        line += &format!(" --mutant {}", mutant.name());
    }
    line
}

/// Plays one seed and tells what happened, to one saga or to all.
fn tell(args: &Args, seed: u64, out: &mut impl io::Write) -> io::Result<bool> {
    let set = |numbers: &Vec<u32>| numbers.iter().copied().collect::<BTreeSet<_>>();
    let plan = Plan {
        only_faults: args.only_faults.as_ref().map(set),
        only_deeds: args.only_deeds.as_ref().map(|numbers| numbers.iter().copied().collect()),
        steps: args.steps,
        is_wild: args.wild,
        mutant: args.mutant,
        tells: true,
        ..Plan::of(seed)
    };
    let history = play(&MusicCorp, &Workshop::new(SYSTEM), &plan);
    for (number, deed) in history.deeds.iter().enumerate() {
        writeln!(out, "deed {number}: {deed}")?;
    }
    for line in history.trace.story() {
        let belongs = match (&args.saga, &line.saga) {
            (Some(wanted), Some(saga)) => wanted == saga,
            (Some(_), None) | (None, _) => true,
        };
        if belongs {
            writeln!(out, "{}", line.text)?;
        }
    }
    writeln!(out, "{}", ending(&history))?;
    Ok(history.violation.is_none())
}

fn ending(history: &History) -> String {
    match &history.violation {
        Some(violation) => format!("BROKEN: {violation}"),
        None => format!("every promise was kept (trace {:016x})", history.trace.hash()),
    }
}

/// Every weakening must be found out within its budget.
fn prove(args: &Args, out: &mut impl io::Write) -> io::Result<bool> {
    let mut all_found = true;
    for mutant in Mutant::ALL {
        let campaign =
            Campaign { mutant: Some(*mutant), threads: args.threads, ..Campaign::of(args.from, mutant.budget()) };
        let verdict = run(&MusicCorp, SYSTEM, &campaign);
        match &verdict.broken {
            Some((seed, what)) => writeln!(out, "{:<24} found out by seed {seed}: {what}", mutant.name())?,
            None => {
                all_found = false;
                writeln!(out, "{:<24} SURVIVED {} seeds", mutant.name(), verdict.seeds)?;
            }
        }
    }
    Ok(all_found)
}
