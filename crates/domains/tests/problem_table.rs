//! The table of problem codes in ARCHITECTURE.md is what the code's own docs say.
//!
//! `NAMEPLATE_REWRITE_DOCS=1 cargo test -p domains --test problem_table` writes it anew.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{collections::BTreeSet, fs, path::Path};

use domains::ProblemCode;

const HEAD: &str = "| code | means |\n|---|---|\n";

#[test]
fn the_table_in_the_architecture_is_the_codes_own_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(HEAD).expect("ARCHITECTURE.md has a table of codes");
    let after = rest.lines().skip_while(|line| line.starts_with('|')).map(|line| format!("{line}\n")).collect::<String>();
    let rows: String = ProblemCode::ALL.iter().map(|code| format!("| `{}` | {} |\n", code.as_str(), code.meaning())).collect();
    let wanted = format!("{before}{HEAD}{rows}{after}");
    if std::env::var_os("NAMEPLATE_REWRITE_DOCS").is_some() {
        fs::write(&path, &wanted).unwrap();
        return;
    }
    assert!(text == wanted, "the table of problem codes is not the code's; NAMEPLATE_REWRITE_DOCS=1 cargo test -p domains writes it anew");
}

#[test]
fn no_two_codes_mean_the_same_and_each_meaning_is_one_sentence() {
    let meanings: BTreeSet<&str> = ProblemCode::ALL.iter().map(|code| code.meaning()).collect();
    assert_eq!(meanings.len(), ProblemCode::ALL.len());
    for meaning in meanings {
        assert!(meaning.ends_with('.') && !meaning.contains('\n') && !meaning.contains('|'), "{meaning}");
    }
}
