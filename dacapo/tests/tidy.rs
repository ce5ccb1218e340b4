//! Rules about the tree that no compiler enforces: the arrows between crates, the purity of deciders, the size of functions.
//!
//! `tidy/absences.rs` has the absences that ARCHITECTURE.md states, `tidy/documents.rs` what the documents name, and this file the rest.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tidy/absences.rs"]
mod absences;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "../../scripts/duplicates.rs"]
mod duplicates;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const SERVICES: [&str; 7] = [
    "producers/catalogue",
    "producers/customers",
    "producers/order-processor",
    "consumers/loyalty",
    "consumers/notifications",
    "consumers/payment",
    "consumers/warehouse",
];

/// A service that decides nothing: a projection with a query.
const VIEWS: [&str; 1] = ["consumers/recommendations"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below `folder` with this ending, build output left out.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.is_file() && name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The crates a manifest depends on for what it ships (tests may reach further).
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let manifest: toml::Table = toml::from_str(manifest).unwrap();
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

/// A line without its comment.
fn line_of_code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The numbered lines of a file that ship: without comments and unit tests.
fn shipped_code(source: &str) -> Vec<(usize, String)> {
    let shipped = source.split("#[cfg(test)]").next().unwrap_or_default();
    shipped.lines().enumerate().map(|(at, line)| (at + 1, line_of_code(line).to_owned())).collect()
}

#[test]
fn every_program_has_the_same_allocator() {
    let attribute = "#[global_allocator]";
    assert!(read(root().join("runtime/src/allocator.rs")).contains(attribute), "the runtime sets no allocator");
    for path in files(&root(), "main.rs") {
        let folder = path.parent().unwrap();
        if !folder.ends_with("src") {
            continue;
        }
        let manifest = read(folder.parent().unwrap().join("Cargo.toml"));
        let inherits = dependencies(&manifest).contains("dacapo-runtime");
        let sets_its_own = read(&path).contains(attribute);
        assert!(inherits != sets_its_own, "{}: its allocator comes from the runtime, or from itself", path.display());
    }
}

#[test]
fn chaos_is_drawn_from_its_seed() {
    let plan = read(root().join("chaos/src/plan.rs"));
    for word in ["Instant", "SystemTime", "now_ms", "now_v7", "std::fs", "tokio", "HashMap"] {
        assert!(!plan.contains(word), "chaos/src/plan.rs names {word}: the same seed draws the same plan");
    }
}

#[test]
fn the_simulation_draws_everything_from_its_seed() {
    let banned = ["tokio", "SystemTime", "now_v7", "clock::now_ms", "rand::"];
    for path in files(&root().join("simulation/src"), ".rs") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // These two measure how fast runs are; they execute none.
        let measures = ["campaign.rs", "main.rs"].contains(&name.as_str());
        for word in banned.iter().chain(if measures { &[][..] } else { &["Instant", "thread"] }) {
            let source = read(&path);
            let mut code = source.lines().map(|line| line.split("//").next().unwrap_or_default());
            assert!(!code.any(|line| line.contains(word)), "{} names {word}", path.display());
        }
    }
}

#[test]
fn every_service_has_its_files_under_the_same_names() {
    for service in SERVICES {
        for file in ["lib.rs", "reads.rs", "events.rs", "main.rs"] {
            assert!(root().join(service).join("src").join(file).is_file(), "{service} has no src/{file}");
        }
        for part in ["decide", "evolve"] {
            let src = root().join(service).join("src");
            assert!(src.join(format!("{part}.rs")).is_file() || src.join(part).is_dir(), "{service} has no {part}");
        }
        for test in ["scenarios.rs", "contract.rs"] {
            assert!(root().join(service).join("tests").join(test).is_file(), "{service} has no tests/{test}");
        }
    }
}

#[test]
fn no_function_outgrows_a_screen() {
    const MAX_LINES: usize = 60;
    let mut long = Vec::new();
    for path in files(&root(), ".rs") {
        let source = read(&path);
        let lines: Vec<&str> = source.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let head = line
                .trim_start()
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ");
            let head = head.trim_start_matches("const ").trim_start_matches("async ");
            if !head.starts_with("fn ") || line.trim_end().ends_with(';') {
                continue;
            }
            let closing = format!("{}}}", " ".repeat(indent));
            let length = lines[start..].iter().position(|line| *line == closing).unwrap_or(0);
            if length > MAX_LINES {
                long.push(format!("{}:{} {length} lines", path.strip_prefix(root()).unwrap().display(), start + 1));
            }
        }
    }
    assert!(long.is_empty(), "functions over {MAX_LINES} lines: {long:#?}");
}

#[test]
fn no_test_is_switched_off_and_none_sleeps() {
    let marks = [concat!("#[ign", "ore"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    for path in files(&root(), ".rs") {
        let source = read(&path);
        for mark in marks {
            assert!(!source.contains(mark), "{} contains {mark}", path.display());
        }
        if path.components().any(|part| part.as_os_str() == "tests") {
            assert!(!source.contains(concat!("thread::sl", "eep")), "{} sleeps: wait for a condition", path.display());
        }
    }
}

#[test]
fn every_file_begins_with_what_it_owns() {
    for path in files(&root(), ".rs") {
        assert!(read(&path).starts_with("//!"), "{} does not begin with what it is for", path.display());
    }
}
