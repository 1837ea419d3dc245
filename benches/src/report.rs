//! Figures as they come, as a table for people or as one JSON object a line for programs.
//!
//! Each object is `{"name","value","unit","goal","met"}`; `goal` and `met` are null where there is
//! nothing to be met.

use serde::Serialize;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// The bound itself still meets it.
    AtMost(f64),
    /// The bound itself still meets it.
    AtLeast(f64),
    /// Only told.
    None,
}

impl Goal {
    fn bound(self) -> Option<f64> {
        match self {
            Self::AtMost(bound) | Self::AtLeast(bound) => Some(bound),
            Self::None => None,
        }
    }

    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(bound) => Some(value <= bound),
            Self::AtLeast(bound) => Some(value >= bound),
            Self::None => None,
        }
    }
}

/// One line.
#[derive(Serialize)]
struct Figure<'a> {
    name: &'a str,
    value: f64,
    unit: &'a str,
    goal: Option<f64>,
    met: Option<bool>,
}

/// Prints figures.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// As JSON, not as a table.
    pub json: bool,
}

impl Report {
    /// Prints one figure.
    pub fn add(&self, name: &str, value: f64, unit: &str, goal: Goal) {
        self.print(name, value, unit, goal, "");
    }

    /// Prints the median of several rounds, and in the table their smallest and largest too.
    ///
    /// # Panics
    /// There are no rounds.
    pub fn add_rounds(&self, name: &str, rounds: &[f64], unit: &str, goal: Goal) {
        let (low, high) = spread(rounds);
        let beside = format!("{low:.2} to {high:.2}");
        self.print(name, median(rounds.to_vec()), unit, goal, &beside);
    }

    fn print(&self, name: &str, value: f64, unit: &str, goal: Goal, beside: &str) {
        let (bound, met) = (goal.bound(), goal.is_met(value));
        if self.json {
            let value = (value * 1000.0).round() / 1000.0;
            let figure = Figure { name, value, unit, goal: bound, met };
            println!("{}", serde_json::to_string(&figure).expect("numbers and text"));
            return;
        }
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        let sign = match goal {
            Goal::AtMost(_) => "<=",
            Goal::AtLeast(_) => ">=",
            Goal::None => "",
        };
        let goal = bound.map_or(String::new(), |bound| format!("{sign} {bound}"));
        let line = format!("{name:<48} {value:>14.2} {unit:<12} {goal:>12} {verdict:<6} {beside}");
        println!("{}", line.trim_end());
    }
}

/// The middle one of the values, or the mean of the two in the middle.
///
/// # Panics
/// There are none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    f64::midpoint(values[low], values[high])
}

/// The smallest and the largest of the values.
#[must_use]
pub fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(*value), high.max(*value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 9.0, 2.0]), 3.0);
    }
}
