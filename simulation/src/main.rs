//! The simulation as a program: it runs seeds, reports a broken promise with the line that repeats it, and proves that it detects
//! every mutant.

use std::{collections::BTreeSet, io, num::NonZeroUsize, process::ExitCode, time::Duration};

use clap::Parser;
use simulation::{
    Fixtures, Mutant, Plan, SimulatedRun,
    campaign::{Campaign, CampaignReport, run_campaign},
    musiccorp::{MusicCorp, SEEN_SOMETIMES, SYSTEM},
    run, shrink,
};

/// How many runs may be spent on shrinking a failing one.
const SHRINK_TRIES: usize = 400;
/// From this many seeds on, every situation in [`SEEN_SOMETIMES`] must have occurred.
const SEEDS_TO_SEE_ALL: u64 = 10_000;

/// Simulates MusicCorp from seeds, with crashes, zombies, and late and lost requests, and checks every promise.
#[derive(Debug, Parser)]
#[command(name = "simulation")]
struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Start no further seed after this many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// Run each seed twice and compare the traces
    #[arg(long)]
    twice: bool,
    /// Inject more faults, for longer, as for a run overnight
    #[arg(long)]
    wild: bool,
    /// Prove that every mutant is detected within its budget of seeds
    #[arg(long)]
    mutants: bool,
    /// Weaken the protocol in this way
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Run this one seed and print its trace
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// With --seed: inject only these faults
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    only_faults: Option<Vec<u32>>,
    /// With --seed: apply only these operations
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    only_operations: Option<Vec<usize>>,
    /// With --seed: end the phase with faults after this many steps
    #[arg(long)]
    steps: Option<u64>,
    /// With --seed: print only what belongs to this saga, such as the id of an order
    #[arg(long, value_name = "ID")]
    saga: Option<String>,
    /// How many threads; each seed runs on one
    #[arg(long, default_value_t = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))]
    threads: NonZeroUsize,
}

fn mutant(name: &str) -> Result<Mutant, String> {
    let names: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
    Mutant::find(name).ok_or_else(|| format!("the mutants are {}", names.join(", ")))
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A panic of a decider is caught and reported as a broken promise.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = io::stdout().lock();
    let succeeded = match (args.seed, args.mutants) {
        (Some(seed), _) => print_run(&args, seed, &mut out),
        (None, true) => detect_mutants(&args, &mut out),
        (None, false) => run_seeds(&args, &mut out),
    };
    match succeeded {
        Ok(true) => ExitCode::SUCCESS,
        // The reader of the output has closed it.
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

/// Runs the seeds. Returns false if a promise was broken, or if a situation that must occur did not.
fn run_seeds(args: &Args, out: &mut impl io::Write) -> io::Result<bool> {
    let campaign = campaign(args);
    let report = run_campaign(&MusicCorp, SYSTEM, &campaign);
    writeln!(
        out,
        "{} seeds from {}, {} steps, {} faults; {:.0} runs a second and core",
        report.seeds,
        args.from,
        report.steps,
        report.faults,
        report.rate(&campaign)
    )?;
    if let Some((seed, what)) = &report.violation {
        writeln!(out, "\nseed {seed} breaks a promise: {what}")?;
        return report_violation(args, *seed, out).map(|()| false);
    }
    if let Some(seed) = report.nondeterministic {
        writeln!(
            out,
            "\nseed {seed} gave two different traces: something in its run does not depend on the seed alone"
        )?;
        return Ok(false);
    }
    let must_see_all = args.mutant.is_none() && report.seeds >= SEEDS_TO_SEE_ALL;
    let unseen = unseen(&report);
    for (situation, times) in report.sightings.iter() {
        writeln!(out, "  {times:>8}  {situation}")?;
    }
    for situation in &unseen {
        writeln!(out, "  {:>8}  {situation}", "NEVER")?;
    }
    Ok(!must_see_all || unseen.is_empty())
}

fn unseen(report: &CampaignReport) -> Vec<&'static str> {
    SEEN_SOMETIMES.iter().copied().filter(|situation| report.sightings.of(situation) == 0).collect()
}

/// Shrinks a failing seed and prints the line that repeats it.
fn report_violation(args: &Args, seed: u64, out: &mut impl io::Write) -> io::Result<()> {
    let fixtures = Fixtures::new(SYSTEM);
    let plan = Plan { mutant: args.mutant, is_wild: args.wild, ..Plan::of(seed) };
    let (plan, shrunk) = shrink(&MusicCorp, &fixtures, &plan, SHRINK_TRIES);
    let what = shrunk.violation.as_ref().map(ToString::to_string).unwrap_or_default();
    writeln!(out, "shrunk to {} faults, {} steps: {what}", shrunk.faults.len(), shrunk.steps)?;
    writeln!(out, "repeat it: {}", command_line(&plan))
}

/// The command that repeats the run of a plan.
fn command_line(plan: &Plan) -> String {
    let list = |numbers: Vec<String>| numbers.join(",");
    let mut line = format!("cargo run --release -p simulation -- --seed {}", plan.seed);
    if plan.is_wild {
        line += " --wild";
    }
    if let Some(faults) = &plan.only_faults {
        line += &format!(" --only-faults={}", list(faults.iter().map(ToString::to_string).collect()));
    }
    if let Some(operations) = &plan.only_operations {
        line += &format!(" --only-operations={}", list(operations.iter().map(ToString::to_string).collect()));
    }
    if let Some(steps) = plan.steps {
        line += &format!(" --steps {steps}");
    }
    if let Some(mutant) = plan.mutant {
        line += &format!(" --mutant {}", mutant.name());
    }
    line
}

/// Runs one seed and prints its trace, of one saga or of all.
fn print_run(args: &Args, seed: u64, out: &mut impl io::Write) -> io::Result<bool> {
    let set = |numbers: &Vec<u32>| numbers.iter().copied().collect::<BTreeSet<_>>();
    let plan = Plan {
        only_faults: args.only_faults.as_ref().map(set),
        only_operations: args.only_operations.as_ref().map(|numbers| numbers.iter().copied().collect()),
        steps: args.steps,
        is_wild: args.wild,
        mutant: args.mutant,
        keeps_lines: true,
        ..Plan::of(seed)
    };
    let simulated = run(&MusicCorp, &Fixtures::new(SYSTEM), &plan);
    for (number, operation) in simulated.operations.iter().enumerate() {
        writeln!(out, "operation {number}: {operation}")?;
    }
    for line in simulated.trace.lines() {
        let belongs = match (&args.saga, &line.saga) {
            (Some(wanted), Some(saga)) => wanted == saga,
            (Some(_), None) | (None, _) => true,
        };
        if belongs {
            writeln!(out, "{}", line.text)?;
        }
    }
    writeln!(out, "{}", result_line(&simulated))?;
    Ok(simulated.violation.is_none())
}

fn result_line(simulated: &SimulatedRun) -> String {
    match &simulated.violation {
        Some(violation) => format!("BROKEN: {violation}"),
        None => format!("every promise was kept (trace {:016x})", simulated.trace.hash()),
    }
}

/// Runs every mutant. Returns false if one is not detected within its budget of seeds.
fn detect_mutants(args: &Args, out: &mut impl io::Write) -> io::Result<bool> {
    let mut all_detected = true;
    for mutant in Mutant::ALL {
        let campaign =
            Campaign { mutant: Some(*mutant), threads: args.threads, ..Campaign::of(args.from, mutant.budget()) };
        let report = run_campaign(&MusicCorp, SYSTEM, &campaign);
        match &report.violation {
            Some((seed, what)) => writeln!(out, "{:<24} detected by seed {seed}: {what}", mutant.name())?,
            None => {
                all_detected = false;
                writeln!(out, "{:<24} NOT DETECTED by {} seeds", mutant.name(), report.seeds)?;
            }
        }
    }
    Ok(all_detected)
}
