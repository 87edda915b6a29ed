//! The documentation leads where it says, and knows every problem code.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use domains::ProblemCode;

const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "bench/README.md",
    "edge/METRICS.md",
    "functions/README.md",
    "infra/systemd/README.md",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A document's lines outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The targets of a line's links, `[text](target)` and `[name]: target`.
fn links(line: &str) -> Vec<String> {
    let without_code: String = line.split('`').step_by(2).collect();
    let mut found: Vec<String> =
        without_code.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()).map(str::to_owned).collect();
    if let Some((name, target)) = without_code.split_once("]: ")
        && name.starts_with('[')
    {
        found.push(target.trim().to_owned());
    }
    found
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut times: HashMap<String, usize> = HashMap::new();
    let mut found = Vec::new();
    for heading in prose(text).filter(|line| line.starts_with('#')) {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let slug: String =
            title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-");
        let seen = times.entry(slug.clone()).or_default();
        found.push(if *seen == 0 { slug } else { format!("{slug}-{seen}") });
        *seen += 1;
    }
    found
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading_that_exist() {
    let mut broken = Vec::new();
    for document in DOCUMENTS {
        let path = workspace().join(document);
        let text = read(&path);
        for link in prose(&text).flat_map(links).filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            if !target.exists() {
                broken.push(format!("{document}: {link}: there is no {file}"));
            } else if let Some(anchor) = anchor
                && target.extension().is_some_and(|extension| extension == "md")
                && !anchors(&read(&target)).iter().any(|known| known == anchor)
            {
                broken.push(format!("{document}: {link}: there is no heading #{anchor}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_problem_code_is_explained_in_the_architecture() {
    let text = read(&workspace().join("ARCHITECTURE.md"));
    let missing: Vec<_> = ProblemCode::ALL.iter().map(|code| code.as_str()).filter(|code| !text.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not explain {missing:?}");
}

#[test]
fn links_and_headings_are_found_as_a_reader_finds_them() {
    assert_eq!(links("See [a](x.md#y), `[no](code)` and [b](z \"title\")."), ["x.md#y", "z"]);
    assert_eq!(links("[name]: target.md"), ["target.md"]);
    assert_eq!(anchors("# One\n```\n# code\n```\n## Who may `do` it?\n## One\n"), ["one", "who-may-do-it", "one-1"]);
}
