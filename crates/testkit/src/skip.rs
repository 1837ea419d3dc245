//! Tests that this machine cannot run say so, and fail where everything must be there.

use std::fmt::Display;
use std::io::Write as _;

/// Says on the real stderr that the current test is skipped, and why; the test then returns.
///
/// # Panics
/// If the variable `CI` is `true`: there, a test that does not run is a failure.
pub fn skip(reason: impl Display) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(!in_ci(), "SKIPPED is a failure where CI=true: {reason}");
    // Not eprintln!: the test harness would keep that to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// The value, or `None` after [`skip`] with the error as the reason.
///
/// ```no_run
/// let Some(venv) = forebay_testkit::or_skip(forebay_testkit::python::venv(&["pyzmq"])) else {
///     return;
/// };
/// ```
///
/// # Panics
/// As [`skip`] does.
pub fn or_skip<T, E: Display>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(reason) => {
            // The alternate form shows all causes of an `anyhow::Error`.
            skip(format!("{reason:#}"));
            None
        }
    }
}

fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Not a test: what the children below run.
    #[test]
    #[ignore = "runs only as the child of another test"]
    fn child() {
        if std::env::var_os("FOREBAY_TESTKIT_SKIP").is_some() {
            skip("planted");
        }
    }

    fn run(ci: Option<&str>) -> (bool, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "skip::tests::child", "--ignored"]).env_remove("CI");
        command.env("FOREBAY_TESTKIT_SKIP", "1").envs(ci.map(|value| ("CI", value)));
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn a_skip_is_loud_on_the_real_stderr_and_passes() {
        let (passed, stderr) = run(None);
        assert!(passed);
        assert_eq!(stderr.trim(), "SKIPPED skip::tests::child: planted");
    }

    #[test]
    fn a_skip_fails_where_everything_must_be_there() {
        assert!(!run(Some("true")).0);
    }
}
