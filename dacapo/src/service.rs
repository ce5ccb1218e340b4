//! `dacapo service`: one service of MusicCorp as its own process, exactly as its own binary runs it.

use clap::{ArgMatches, FromArgMatches, Subcommand, error::ErrorKind};
use runtime::Program;

/// Every program of MusicCorp, in the order in which `up` starts them.
#[must_use]
pub fn programs() -> Vec<Program> {
    vec![
        customers::program(),
        catalogue::program(),
        order_processor::program(),
        warehouse::program(),
        payment::program(),
        loyalty::program(),
        notifications::program(),
        recommendations::program(),
        projector::program(),
    ]
}

/// The names of the programs.
#[must_use]
pub fn names() -> Vec<&'static str> {
    programs().iter().map(Program::name).collect()
}

/// The service to run, and the flags of its program.
#[derive(Debug)]
pub struct ServiceCommand {
    name: String,
    flags: ArgMatches,
}

impl Subcommand for ServiceCommand {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        // An unknown name is accepted here, so that the error can list the valid names.
        let command = command.allow_external_subcommands(true).subcommand_value_name("NAME");
        programs().iter().fold(command, |command, program| command.subcommand(program.command()))
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        names().contains(&name)
    }
}

impl FromArgMatches for ServiceCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some((name, flags)) if Self::has_subcommand(name) => {
                Ok(Self { name: name.to_owned(), flags: flags.clone() })
            }
            other => {
                let name = other.map_or("", |(name, _)| name);
                let text = format!("there is no service {name:?}; the services are {}", names().join(", "));
                Err(clap::Error::raw(ErrorKind::InvalidSubcommand, text))
            }
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs the service until a signal stops it.
pub async fn run(command: &ServiceCommand) {
    for program in programs().into_iter().filter(|program| program.name() == command.name) {
        if !program.run(&command.flags).await {
            // The service has logged the reason, as its own binary does.
            std::process::exit(1);
        }
    }
}
