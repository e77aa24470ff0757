//! What came of it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::measure::{Plan, Turn, Turns, median};

/// A table of medians, each beside the floor's.
#[must_use]
pub fn table(turns: &Turns, title: &str) -> String {
    let mut text = format!(
        "### {title}\n\n| | | requests/s | × floor | p50 ms | p99 ms | CPU ms/request | × floor | PSS MiB |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    for (scenario, contenders) in turns {
        let floor = contenders.get("floor");
        for (name, turns) in contenders {
            let of = |what: fn(&Turn) -> f64| median(turns, what);
            let ratio = |what: fn(&Turn) -> f64| {
                floor
                    .filter(|_| *name != "floor")
                    .map_or_else(String::new, |floor| format!("{:.2}", median(turns, what) / median(floor, what)))
            };
            // To a String nothing fails.
            let _ = writeln!(
                text,
                "| {scenario} | {name} | {:.0} | {} | {:.2} | {:.2} | {:.3} | {} | {:.0} |",
                of(|turn| turn.rate),
                ratio(|turn| turn.rate),
                of(|turn| turn.p50),
                of(|turn| turn.p99),
                of(|turn| turn.processor),
                ratio(|turn| turn.processor),
                of(|turn| turn.memory),
            );
        }
    }
    text
}

/// Everything that was measured.
#[must_use]
pub fn json(turns: &Turns, title: &str, plan: Plan, questions: u64) -> Value {
    json!({"title": title, "plan": plan, "questions": questions, "turns": turns})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn turn(rate: f64) -> Turn {
        Turn { rate, processor: 1.0 / rate, p50: 1.0, p99: 2.0, memory: 20.0 }
    }

    #[test]
    fn medians_stand_beside_the_floors() {
        let contenders = BTreeMap::from([
            ("floor", [100.0, 900.0, 200.0].map(turn).to_vec()),
            ("mundap", [300.0, 300.0].map(turn).to_vec()),
        ]);
        let text = table(&BTreeMap::from([("get one", contenders)]), "a run");
        assert!(text.contains("| get one | floor | 200 |  | 1.00 | 2.00 | 0.005 |  | 20 |"), "{text}");
        assert!(text.contains("| get one | mundap | 300 | 1.50 | 1.00 | 2.00 | 0.003 | 0.67 | 20 |"), "{text}");
    }
}
