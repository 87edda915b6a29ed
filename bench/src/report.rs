//! What came of it, for readers: a table in Markdown and a plot in SVG.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{load::Operation, peers::Running};

/// CPU time per operation, by operation and server, a figure a round.
#[derive(Debug)]
pub(crate) struct Results {
    servers: Vec<(&'static str, String)>,
    figures: BTreeMap<(Operation, &'static str), Vec<f64>>,
    failures: BTreeMap<(Operation, &'static str), String>,
    missing: Vec<String>,
}

/// A table and a plot.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) table: String,
    pub(crate) plot: String,
}

impl Results {
    pub(crate) fn new(servers: &[Running], missing: Vec<String>) -> Self {
        let servers = servers.iter().map(|server| (server.name, server.version.clone())).collect();
        Self { servers, figures: BTreeMap::new(), failures: BTreeMap::new(), missing }
    }

    pub(crate) fn add(&mut self, operation: Operation, server: &'static str, micros: f64) {
        self.figures.entry((operation, server)).or_default().push(micros);
    }

    /// A server that cannot do an operation is not asked again.
    pub(crate) fn cannot(&mut self, operation: Operation, server: &'static str, why: String) {
        self.failures.insert((operation, server), why);
    }

    pub(crate) fn can(&self, operation: Operation, server: &'static str) -> bool {
        !self.failures.contains_key(&(operation, server))
    }

    pub(crate) fn report(&self, noise: &str, rounds: usize, seconds: u64) -> Report {
        let operations: Vec<Operation> = Operation::ALL.into_iter().filter(|operation| self.median(*operation, "edge").is_some()).collect();
        Report { table: self.table(&operations, noise, rounds, seconds), plot: self.plot(&operations) }
    }

    /// The median, and the least and most.
    fn median(&self, operation: Operation, server: &'static str) -> Option<(f64, f64, f64)> {
        let mut figures = self.figures.get(&(operation, server))?.clone();
        figures.sort_by(f64::total_cmp);
        Some((figures[figures.len() / 2], figures[0], figures[figures.len() - 1]))
    }

    fn table(&self, operations: &[Operation], noise: &str, rounds: usize, seconds: u64) -> String {
        let mut table = String::from("| server CPU µs per operation (lower is better) |");
        for (name, version) in &self.servers {
            let _ = write!(table, " {name} {version} |");
        }
        table.push_str(" aim | reached |\n|---|");
        self.servers.iter().for_each(|_| table.push_str("---:|"));
        table.push_str("---|---:|\n");
        for &operation in operations {
            let _ = write!(table, "| {} |", operation.words());
            for (name, _) in &self.servers {
                let _ = match self.median(operation, name) {
                    Some((median, least, most)) => write!(table, " {median:.1} ({least:.1}–{most:.1}) |"),
                    None => write!(table, " – |"),
                };
            }
            let _ = writeln!(table, " {} |", self.against_aims(operation));
        }
        let _ = writeln!(table, "\nMedian of {rounds} interleaved rounds of {seconds} s each, least and most beside it. {noise}.");
        for missing in &self.missing {
            let _ = writeln!(table, "\nLeft out: {missing}.");
        }
        for ((operation, server), why) in &self.failures {
            let _ = writeln!(table, "\n{server} cannot do “{}”: {why}.", operation.words());
        }
        table
    }

    /// Each aim of an operation, and each as it was reached.
    fn against_aims(&self, operation: Operation) -> String {
        let aims = operation.aims().iter().map(|&(most, of)| format!("≤ {most:.2}× {}", of.unwrap_or("the best")));
        let reached = operation.aims().iter().map(|&(most, of)| self.against_aim(operation, most, of));
        format!("{} | {}", aims.collect::<Vec<_>>().join(", "), reached.collect::<Vec<_>>().join(", "))
    }

    fn against_aim(&self, operation: Operation, most: f64, of: Option<&str>) -> String {
        let no_edge = |name: &&str| !["edge", "before"].contains(name);
        let peers = self.servers.iter().map(|(name, _)| *name).filter(no_edge).filter(|&name| of.is_none_or(|of| of == name));
        let best = peers.filter_map(|name| self.median(operation, name)).map(|(median, ..)| median).min_by(f64::total_cmp);
        match (self.median(operation, "edge"), best) {
            (Some((edge, ..)), Some(best)) if edge / best <= most => format!("{:.2}×", edge / best),
            (Some((edge, ..)), Some(best)) => format!("{:.2}× (missed)", edge / best),
            _ => "–".to_owned(),
        }
    }

    fn plot(&self, operations: &[Operation]) -> String {
        const COLOURS: [&str; 6] = ["#0b7a75", "#7a9e7e", "#a3b18a", "#b0a990", "#8d99ae", "#c9ada7"];
        let (row, gap, left, width) = (16, 34, 12, 560.0);
        let height = operations.len() * (row * self.servers.len() + gap) + 20;
        let mut plot = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" viewBox=\"0 0 760 {height}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n\
             <title>Server CPU time per operation, in microseconds; shorter is better</title>\n<rect width=\"760\" height=\"{height}\" fill=\"#fff\"/>\n"
        );
        let mut y = 20;
        for &operation in operations {
            let _ = writeln!(plot, "<text x=\"{left}\" y=\"{y}\" font-weight=\"bold\">{}</text>", operation.words());
            y += 6;
            let most =
                self.servers.iter().filter_map(|(name, _)| self.median(operation, name)).map(|(median, ..)| median).fold(1.0, f64::max);
            for (number, (name, _)) in self.servers.iter().enumerate() {
                let label_y = y + row - 4;
                let _ = match self.median(operation, name) {
                    Some((median, ..)) => writeln!(
                        plot,
                        "<rect x=\"80\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/><text x=\"{left}\" y=\"{label_y}\">{name}</text><text x=\"{:.1}\" y=\"{label_y}\">{median:.1} µs</text>",
                        median / most * width,
                        row - 3,
                        COLOURS[number % COLOURS.len()],
                        86.0 + median / most * width
                    ),
                    None => writeln!(plot, "<text x=\"{left}\" y=\"{label_y}\">{name}</text><text x=\"86\" y=\"{label_y}\">cannot</text>"),
                };
                y += row;
            }
            y += gap - 6;
        }
        plot.push_str("</svg>\n");
        plot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_ratios_and_what_is_missing_are_told() {
        let mut results = Results {
            servers: vec![("edge", "1".to_owned()), ("nginx", "2".to_owned())],
            figures: BTreeMap::new(),
            failures: BTreeMap::new(),
            missing: vec!["caddy: not here".to_owned()],
        };
        for (edge, nginx) in [(10.0, 20.0), (30.0, 40.0), (12.0, 24.0)] {
            results.add(Operation::Http1, "edge", edge);
            results.add(Operation::Http1, "nginx", nginx);
        }
        results.add(Operation::Large, "edge", 22.0);
        results.add(Operation::Large, "nginx", 20.0);
        results.add(Operation::MlKem, "edge", 50.0);
        results.cannot(Operation::MlKem, "nginx", "no such group".to_owned());
        results.servers.push(("nginx-sid", "3".to_owned()));
        for (operation, micros) in [(Operation::Handshake, 100.0), (Operation::MlKem, 125.0)] {
            results.add(operation, "nginx-sid", micros);
        }
        results.add(Operation::Handshake, "edge", 44.0);
        results.add(Operation::Handshake, "nginx", 100.0);
        let Report { table, plot } = results.report("quiet", 3, 1);
        for expected in [
            "| 44.0 (44.0–44.0) | 100.0 (100.0–100.0) | 100.0 (100.0–100.0) | ≤ 0.40× nginx, ≤ 0.45× nginx-sid | 0.44× (missed), 0.44× |",
            "| 50.0 (50.0–50.0) | – | 125.0 (125.0–125.0) | ≤ 0.45× nginx-sid | 0.40× |",
            "| 12.0 (10.0–30.0) | 24.0 (20.0–40.0) | – | ≤ 0.90× nginx | 0.50× |",
            "| 22.0 (22.0–22.0) | 20.0 (20.0–20.0) | – | ≤ 1.00× the best | 1.10× (missed) |",
            "Left out: caddy: not here.",
            "no such group",
        ] {
            assert!(table.contains(expected), "{expected}: {table}");
        }
        assert!(plot.contains("12.0 µs") && plot.contains("cannot") && plot.ends_with("</svg>\n"));
        assert!(!results.can(Operation::MlKem, "nginx") && results.can(Operation::Http1, "nginx"));
    }
}
