//! Long hunts for a failure: the seeded tests of the normal run, for millions of cases.
//!
//! `cargo run --release -p forebay-testkit --bin hunt -- link --long`
//!
//! A hunt is a test that takes its number of cases, and where it has seeds the first of them, from
//! the environment: here it is built with optimisation and run in rounds, each with the seeds that
//! follow those of the round before. It ends at the first round that fails, with the command that
//! repeats it. Another hunt is another row of [`HUNTS`].

use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// A test that can go on for as long as one likes.
struct Hunt {
    name: &'static str,
    /// What is counted.
    cases: &'static str,
    package: &'static str,
    test: &'static str,
    /// The one test function.
    function: &'static str,
    /// The variable that takes the number of cases.
    count: &'static str,
    /// The variable that takes the first seed; without one, each round draws its own.
    first: Option<&'static str>,
    /// Cases of one round: some tens of seconds.
    round: u64,
    /// Cases of `--long`.
    long: u64,
}

const HUNTS: &[Hunt] = &[
    Hunt {
        name: "link",
        cases: "scenarios",
        package: "forebay-link",
        test: "simulation",
        function: "no_entry_is_lost_doubled_or_invented_whatever_happens",
        count: "FOREBAY_SIM_SCENARIOS",
        first: Some("FOREBAY_SIM_FIRST"),
        round: 100_000,
        long: 5_000_000,
    },
    Hunt {
        name: "queue-cuts",
        cases: "cuts",
        package: "forebay-queue",
        test: "power_cut",
        function: "acknowledged_entries_survive_kills_power_cuts_and_failed_syncs",
        count: "FOREBAY_CUTS",
        first: Some("FOREBAY_SEED"),
        round: 2_000_000,
        long: 100_000_000,
    },
    Hunt {
        name: "queue-kills",
        cases: "kills",
        package: "forebay-queue",
        test: "kill_storm",
        // Both levels of durability, half of the cycles each.
        function: "acked_entries_survive_sigkill",
        count: "FOREBAY_CYCLES",
        first: Some("FOREBAY_SEED"),
        round: 4_000,
        long: 100_000,
    },
];

/// What was asked for.
struct Wanted {
    hunt: &'static Hunt,
    count: u64,
    first: u64,
    /// No round begins after it.
    within: Option<Duration>,
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() || arguments.iter().any(|argument| argument == "--help") {
        print!("{}", usage());
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = parse(&arguments)?;
    let began = Instant::now();
    let done = run(&wanted)?;
    let seconds = began.elapsed().as_secs_f64();
    let Some(done) = done else { return Ok(ExitCode::FAILURE) };
    println!(
        "hunt {}: {done} {} in {seconds:.0} s, no failure: p < {:.1e} at 95 %",
        wanted.hunt.name,
        wanted.hunt.cases,
        3.0 / done as f64
    );
    Ok(ExitCode::SUCCESS)
}

fn usage() -> String {
    let mut text = "hunt NAME [--long | --count N] [--first SEED] [--minutes M]\n\n\
        Without --long or --count: one round. --minutes begins no round after them.\n\n"
        .to_owned();
    for hunt in HUNTS {
        let Hunt { name, cases, package, test, round, long, .. } = hunt;
        let _ = writeln!(
            text,
            "{name:<12} {package}, test {test}: {round} {cases} a round, {long} with --long"
        );
    }
    text
}

fn parse(arguments: &[String]) -> Result<Wanted> {
    let mut arguments = arguments.iter().map(String::as_str);
    let name = arguments.next().context("which hunt?")?;
    let hunt = HUNTS.iter().find(|hunt| hunt.name == name);
    let hunt = hunt.with_context(|| format!("no hunt {name}\n\n{}", usage()))?;
    let mut wanted = Wanted { hunt, count: hunt.round, first: 1, within: None };
    while let Some(argument) = arguments.next() {
        let mut value = || -> Result<u64> {
            let text = arguments.next().with_context(|| format!("{argument} needs a number"))?;
            text.replace('_', "").parse().with_context(|| format!("{argument} {text}"))
        };
        match argument {
            "--long" => wanted.count = hunt.long,
            "--count" => wanted.count = value()?,
            "--first" => wanted.first = value()?,
            "--minutes" => {
                wanted.within = Some(Duration::from_secs(value()? * 60));
                // For as long as it takes, unless a number is named after it.
                wanted.count = wanted.count.max(hunt.long);
            }
            other => bail!("unknown argument {other}\n\n{}", usage()),
        }
    }
    ensure!(wanted.count > 0, "no {} to hunt in", hunt.cases);
    Ok(wanted)
}

/// Runs round after round; gives the number of cases, or `None` if one failed.
fn run(wanted: &Wanted) -> Result<Option<u64>> {
    let Wanted { hunt, count, .. } = *wanted;
    let began = Instant::now();
    let mut done = 0;
    while done < count && wanted.within.is_none_or(|within| began.elapsed() < within) {
        let round = hunt.round.min(count - done);
        let mut test = command(hunt, round, wanted.first + done);
        if !test.status().with_context(|| format!("start {test:?}"))?.success() {
            println!("hunt {}: FAILED after {done} {}; again: {test:?}", hunt.name, hunt.cases);
            return Ok(None);
        }
        done += round;
    }
    Ok(Some(done))
}

fn command(hunt: &Hunt, count: u64, first: u64) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut test = Command::new(cargo);
    test.args(["test", "--release", "--quiet", "-p", hunt.package, "--test", hunt.test]);
    test.args(["--", "--exact", hunt.function, "--nocapture"]);
    test.env(hunt.count, count.to_string());
    if let Some(variable) = hunt.first {
        test.env(variable, first.to_string());
    }
    test
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Wanted> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn every_hunt_names_a_test_that_exists_and_reads_its_variables() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        for hunt in HUNTS {
            let package = hunt.package.trim_start_matches("forebay-");
            let file = format!("{root}/{package}/tests/{}", hunt.test);
            let source = std::fs::read_to_string(format!("{file}/main.rs"))
                .or_else(|_| std::fs::read_to_string(format!("{file}.rs")))
                .unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(source.contains(&format!("fn {}()", hunt.function)), "{}", hunt.name);
            for variable in [Some(hunt.count), hunt.first].into_iter().flatten() {
                assert!(source.contains(variable), "{}: {variable}", hunt.name);
            }
        }
    }

    #[test]
    fn a_hunt_takes_its_length_and_its_first_seed() {
        let wanted = parsed("link --long --first 7 --minutes 2").unwrap();
        assert_eq!((wanted.count, wanted.first), (5_000_000, 7));
        assert_eq!(wanted.within, Some(Duration::from_secs(120)));
        assert_eq!(parsed("link --count 1_000").unwrap().count, 1_000);
        assert_eq!(parsed("link").unwrap().count, HUNTS[0].round);
        for wrong in ["", "nothing", "link --count", "link --count x", "link --count 0", "link -x"]
        {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_round_goes_on_where_the_one_before_ended() {
        let command = command(&HUNTS[0], 5, 11);
        let set: Vec<_> =
            command.get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
        assert!(set.contains(&("FOREBAY_SIM_FIRST".as_ref(), "11".as_ref())));
        assert!(set.contains(&("FOREBAY_SIM_SCENARIOS".as_ref(), "5".as_ref())));
    }
}
