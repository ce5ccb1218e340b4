//! Finds rules that are written twice: a run of six lines of one shape in two of the parts below.
//!
//! A line is compared without its comments, texts and names, because a copy is rarely left under its old names. Imports,
//! attributes, lists of modules and fields, and tests are left out. `scripts/duplicates.sh` runs this on the tree, and
//! `dacapo/tests/tidy.rs` includes it. It uses the standard library alone, so that `rustc` builds it in a second.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// How many lines of one shape are a rule that is written twice.
pub(crate) const RUN: usize = 6;

/// The parts, each with its files and folders. No rule may stand in two of them.
pub(crate) const PARTS: [(&str, &[&str]); 4] = [
    ("worker", &["runtime/src/worker.rs", "runtime/src/worker"]),
    ("table", &["runtime/src/table.rs"]),
    ("simulation", &["simulation/src"]),
    (
        "turn",
        &[
            "runtime-core/src/turn.rs",
            "runtime-core/src/turn",
            "runtime-core/src/machine.rs",
            "runtime-core/src/task.rs",
            "runtime-core/src/task",
            "runtime-core/src/barrier.rs",
        ],
    ),
];

const KEYWORDS: [&str; 27] = [
    "as", "async", "await", "break", "const", "continue", "dyn", "else", "enum", "false", "fn", "for", "if", "impl",
    "in", "let", "loop", "match", "move", "mut", "ref", "return", "self", "true", "where", "while", "Self",
];

/// One source file of a part.
pub(crate) struct Source {
    pub(crate) part: &'static str,
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every source file of every part below `root`. A part may be a folder, a file, or both (`worker.rs` and `worker/`).
///
/// # Errors
/// A file or a folder cannot be read. A path of [`PARTS`] that is neither file nor folder is an error too, so that a part that has
/// moved is not skipped silently.
pub(crate) fn sources(root: &Path) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for (part, paths) in PARTS {
        for path in paths {
            let path = root.join(path);
            if !path.exists() {
                return Err(format!("{} does not exist: has the part {part} moved?", path.display()));
            }
            let mut open = vec![path];
            while let Some(path) = open.pop() {
                let failed = |error: std::io::Error| format!("{}: {error}", path.display());
                if path.is_dir() {
                    for entry in fs::read_dir(&path).map_err(failed)? {
                        open.push(entry.map_err(failed)?.path());
                    }
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).map_err(failed)?;
                    sources.push(Source { part, path: shown(root, &path), text });
                }
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(sources)
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).map_or_else(|_| path.display().to_string(), |path: &Path| path.display().to_string())
}

/// Each run of [`RUN`] lines that stands in two parts, as text. Runs that overlap are reported once.
pub(crate) fn duplicates(sources: &[Source]) -> Vec<String> {
    let mut seen: BTreeMap<Vec<String>, (&str, String)> = BTreeMap::new();
    let mut found = Vec::new();
    for source in sources {
        let lines = rule_lines(&source.text);
        let mut reported = 0;
        for (at, run) in lines.windows(RUN).enumerate() {
            let shapes: Vec<String> = run.iter().map(|(_, shape)| shape.clone()).collect();
            let here = format!("{}:{}", source.path, run[0].0);
            let (part, there) = seen.entry(shapes).or_insert_with(|| (source.part, here.clone()));
            if *part != source.part && at >= reported {
                found.push(format!("{here} and {there} have {RUN} lines of one shape: write the rule once"));
                reported = at + RUN;
            }
        }
    }
    found
}

/// The lines of a file that are part of a rule, with their numbers.
fn rule_lines(source: &str) -> Vec<(usize, String)> {
    let shipped = source.split("#[cfg(test)]").next().unwrap_or_default();
    let (mut lines, mut in_use) = (Vec::new(), false);
    for (number, line) in shipped.lines().enumerate() {
        let code = line.trim();
        if in_use || ["use ", "pub use ", "pub(crate) use "].iter().any(|head| code.starts_with(head)) {
            in_use = !code.ends_with(';');
            continue;
        }
        let shape = shape(line);
        let bare = shape.trim_start_matches("x(x) ").trim_start_matches("x ");
        let is_list = ["x x;", "x;", "x,"].contains(&bare)
            || (bare.starts_with("x: ") && bare.ends_with(',') && !bare.contains(['(', '.', '=']));
        if shape.contains('x') && !shape.starts_with('#') && !is_list {
            lines.push((number + 1, shape));
        }
    }
    lines
}

/// A line without comments, texts and names.
fn shape(line: &str) -> String {
    let code = line.split("//").next().unwrap_or_default().trim();
    let (mut shape, mut name, mut in_text) = (String::new(), String::new(), false);
    for letter in code.chars().chain(['\n']) {
        if letter == '"' {
            in_text = !in_text;
        }
        if in_text {
            continue;
        }
        if letter.is_alphanumeric() || letter == '_' {
            name.push(letter);
            continue;
        }
        if !name.is_empty() {
            shape.push_str(if KEYWORDS.contains(&name.as_str()) { &name } else { "x" });
            name.clear();
        }
        shape.push(letter);
    }
    shape.trim().to_owned()
}

/// Prints what is written twice. The exit code is 1 if anything is, and 2 if the parts cannot be read.
#[cfg_attr(
    test,
    expect(
        dead_code,
        clippy::print_stdout,
        clippy::print_stderr,
        reason = "the test that includes this file never calls it"
    )
)]
fn main() -> std::process::ExitCode {
    let root = std::env::args().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let sources = match sources(&root) {
        Ok(sources) => sources,
        Err(error) => {
            eprintln!("cannot read the parts: {error}");
            return std::process::ExitCode::from(2);
        }
    };
    let found = duplicates(&sources);
    for line in &found {
        println!("{line}");
    }
    for (part, _) in PARTS {
        let files: Vec<&Source> = sources.iter().filter(|source| source.part == part).collect();
        let lines: usize = files.iter().map(|source| rule_lines(&source.text).len()).sum();
        println!("{part}: {} files, {lines} lines compared", files.len());
    }
    println!("{} runs of {RUN} lines stand in two parts", found.len());
    if found.is_empty() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
