//! Rules about the tree that no compiler enforces: the arrows between crates, the purity of deciders, the size of functions.
//!
//! ARCHITECTURE.md states them as absences; each test here is one of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
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

#[test]
fn no_service_depends_on_another() {
    let all = || SERVICES.iter().chain(&VIEWS);
    let names: BTreeSet<&str> = all().map(|path| path.rsplit('/').next().unwrap()).collect();
    for service in all() {
        let own = service.rsplit('/').next().unwrap();
        for dependency in dependencies(&read(root().join(service).join("Cargo.toml"))) {
            assert!(
                !names.contains(dependency.as_str())
                    && !["projector", "dacapo", "dacapo-embedded"].contains(&dependency.as_str()),
                "{own} depends on {dependency}: services share the runtime and schemas/, nothing else"
            );
        }
    }
}

#[test]
fn the_arrows_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("runtime-core", &[][..]),
        ("runtime", &["avro-compat", "dacapo-runtime-core"]),
        ("embedded", &["avro-compat"]),
        ("projector", &["dacapo-runtime"]),
    ]);
    let ours = |name: &str| {
        let others = [
            "dacapo-runtime",
            "dacapo-runtime-core",
            "dacapo-embedded",
            "projector",
            "dacapo",
            "avro-compat",
            "conformance",
            "simulation",
            "bench",
            "chaos",
        ];
        others.contains(&name) || SERVICES.iter().chain(&VIEWS).any(|service| service.ends_with(&format!("/{name}")))
    };
    for (member, may) in allowed {
        for dependency in dependencies(&read(root().join(member).join("Cargo.toml"))) {
            assert!(
                !ours(&dependency) || may.contains(&dependency.as_str()),
                "{member} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn the_core_depends_on_nothing_that_does_io() {
    let dependencies = dependencies(&read(root().join("runtime-core/Cargo.toml")));
    for banned in ["rdkafka", "tokio", "reqwest", "sled", "axum", "schema_registry_converter", "metrics", "clap"] {
        assert!(!dependencies.contains(banned), "runtime-core depends on {banned}");
    }
    let lock: toml::Table = toml::from_str(&read(root().join("Cargo.lock"))).unwrap();
    let packages = lock["package"].as_array().unwrap();
    let needs = |name: &str| -> Vec<String> {
        let package = packages.iter().find(|package| package["name"].as_str() == Some(name));
        let listed = package.and_then(|package| package.get("dependencies")).and_then(toml::Value::as_array);
        let names = listed.into_iter().flatten().filter_map(|entry| entry.as_str()?.split(' ').next());
        names.map(str::to_owned).collect()
    };
    let (mut reached, mut open) = (BTreeSet::new(), vec!["dacapo-runtime-core".to_owned()]);
    while let Some(name) = open.pop() {
        if reached.insert(name.clone()) {
            open.extend(needs(&name));
        }
    }
    for banned in ["rdkafka", "tokio", "reqwest", "sled", "axum"] {
        assert!(!reached.contains(banned), "runtime-core reaches {banned} through its dependencies");
    }
}

#[test]
fn the_core_may_not_call_what_does_io() {
    let rules: toml::Table = toml::from_str(&read(root().join("runtime-core/clippy.toml"))).unwrap();
    let banned = |list: &str| -> BTreeSet<String> {
        let entries = rules[list].as_array().unwrap().iter();
        entries.map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
    };
    let methods = banned("disallowed-methods");
    for method in ["std::time::Instant::now", "std::time::SystemTime::now", "std::thread::spawn", "std::fs::read"] {
        assert!(methods.contains(method), "runtime-core/clippy.toml allows {method}");
    }
    let types = banned("disallowed-types");
    for banned in ["std::fs::File", "std::net::TcpStream", "std::net::TcpListener", "std::sync::Mutex"] {
        assert!(types.contains(banned), "runtime-core/clippy.toml allows {banned}");
    }
    for path in files(&root().join("runtime-core/src"), ".rs") {
        for line in read(&path).lines() {
            let waived = line.contains("expect(clippy::disallowed") || line.contains("allow(clippy::disallowed");
            assert!(!waived, "{} waives a rule of clippy.toml", path.display());
        }
    }
}

/// A line as it is compared: without comments, texts and names.
fn shape(line: &str) -> String {
    const KEYWORDS: [&str; 27] = [
        "as", "async", "await", "break", "const", "continue", "dyn", "else", "enum", "false", "fn", "for", "if",
        "impl", "in", "let", "loop", "match", "move", "mut", "ref", "return", "self", "true", "where", "while", "Self",
    ];
    let code = line.split("//").next().unwrap_or_default().trim();
    let mut shape = String::new();
    let mut name = String::new();
    let mut in_text = false;
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

/// The lines of a file that say what is done: no imports, no attributes, no lists of modules or fields, no tests.
fn telling_lines(path: &Path) -> Vec<(usize, String)> {
    let source = read(path);
    let shipped = source.split("#[cfg(test)]").next().unwrap_or_default();
    let (mut lines, mut in_use) = (Vec::new(), false);
    for (number, line) in shipped.lines().enumerate() {
        let code = line.trim();
        if in_use || code.starts_with("use ") || code.starts_with("pub use ") || code.starts_with("pub(crate) use ") {
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

#[test]
fn no_rule_of_the_worker_is_written_twice() {
    const RUN: usize = 6;
    let part = |folder: &str| files(&root().join(folder), ".rs");
    let worker = [part("runtime/src/worker"), vec![root().join("runtime/src/worker.rs")]].concat();
    let parts =
        [worker, vec![root().join("runtime/src/table.rs")], part("simulation/src"), part("runtime-core/src/turn")];
    let mut seen: BTreeMap<Vec<String>, (usize, String)> = BTreeMap::new();
    for (at, paths) in parts.iter().enumerate() {
        for path in paths {
            let lines = telling_lines(path);
            for run in lines.windows(RUN) {
                let shapes: Vec<String> = run.iter().map(|(_, shape)| shape.clone()).collect();
                let here = format!("{}:{}", path.strip_prefix(root()).unwrap().display(), run[0].0);
                let (first, there) = seen.entry(shapes).or_insert((at, here.clone()));
                assert!(*first == at, "{here} and {there} have {RUN} lines of one shape: write the rule once");
            }
        }
    }
}

#[test]
fn only_the_runtime_knows_kafka_avro_the_registry_and_the_store() {
    let technique = ["rdkafka", "apache-avro", "schema_registry_converter", "sled"];
    for member in SERVICES.iter().chain(&VIEWS).chain(&["projector", "dacapo"]) {
        for dependency in dependencies(&read(root().join(member).join("Cargo.toml"))) {
            assert!(
                !technique.contains(&dependency.as_str()),
                "{member} depends on {dependency}: that is the runtime's business"
            );
        }
    }
}

#[test]
fn nothing_that_ships_knows_the_simulation_or_its_mutants() {
    for member in SERVICES.iter().chain(&["runtime-core", "runtime", "embedded", "projector", "dacapo"]) {
        let manifest = read(root().join(member).join("Cargo.toml"));
        for tool in ["simulation", "bench"] {
            assert!(!dependencies(&manifest).contains(tool), "{member} depends on {tool}");
        }
        for path in files(&root().join(member).join("src"), ".rs") {
            let source = read(&path).to_lowercase();
            assert!(!source.contains("mutant"), "{} names a mutant: weakenings live in simulation/", path.display());
        }
    }
}

#[test]
fn nothing_depends_on_chaos() {
    for path in files(&root(), "Cargo.toml") {
        let manifest: toml::Table = toml::from_str(&read(&path)).unwrap();
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let named =
                manifest.get(table).and_then(toml::Value::as_table).is_some_and(|table| table.contains_key("chaos"));
            assert!(!named, "{} depends on chaos", path.display());
        }
    }
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
        // These two measure how fast histories are played; they play none.
        let measures = ["campaign.rs", "main.rs"].contains(&name.as_str());
        for word in banned.iter().chain(if measures { &[][..] } else { &["Instant", "thread"] }) {
            let source = read(&path);
            let mut code = source.lines().map(|line| line.split("//").next().unwrap_or_default());
            assert!(!code.any(|line| line.contains(word)), "{} names {word}", path.display());
        }
    }
}

#[test]
fn deciding_and_remembering_are_pure() {
    let banned = [
        "tokio",
        "reqwest",
        "std::fs",
        "std::net",
        "std::env",
        "SystemTime",
        "Instant",
        "now_v7",
        "rand",
        "tracing::",
        "async ",
        "HashMap",
    ];
    for service in SERVICES {
        for path in files(&root().join(service).join("src"), ".rs") {
            let shown = path.strip_prefix(root()).unwrap().display().to_string();
            if !["decide", "evolve"].iter().any(|part| shown.contains(&format!("/{part}"))) {
                continue;
            }
            let source = read(&path);
            for word in banned {
                let code = source.lines().map(|line| line.split("//").next().unwrap_or_default());
                assert!(
                    !code.into_iter().any(|line| line.contains(word)),
                    "{shown} names {word}: decide and evolve see only their input"
                );
            }
        }
    }
}

#[test]
fn the_runtime_and_the_projector_know_no_order() {
    // The one exception is a constant: the system that schema files are written for.
    let words = ["musiccorp.", "OrderPlaced", "StockReserved", "PaymentTaken", "warehouse", "order-processor"];
    for member in ["runtime-core/src", "runtime/src", "projector/src"] {
        for path in files(&root().join(member), ".rs") {
            let source = read(&path);
            let shipped = source.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in shipped.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                let word = words.iter().find(|word| code.contains(**word));
                assert!(word.is_none(), "{}:{} names {}", path.display(), number + 1, word.unwrap());
            }
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
fn every_path_the_documents_name_exists() {
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = read(root().join(document));
        for word in text.split('`').skip(1).step_by(2) {
            let path = word.split([' ', ':', '#']).next().unwrap_or_default();
            let looks_like_a_path = path.contains('/')
                && path.contains('.')
                && !path.contains(['<', '*', '{', '$', '('])
                && !path.starts_with(['/', '.', '-'])
                && !path.contains("//")
                // What a run makes, not what the tree holds.
                && !path.starts_with("dacapo-data/");
            if looks_like_a_path {
                assert!(root().join(path).exists(), "{document} names {path}, which does not exist");
            }
        }
    }
}

#[test]
fn every_function_on_the_walk_exists_where_it_is_said_to_be() {
    let text = read(root().join("ARCHITECTURE.md"));
    let (_, walk) = text.split_once("## One order").unwrap();
    let (walk, _) = walk.split_once("## The parts").unwrap();
    let (mut file, mut source, mut functions) = ("", String::new(), 0);
    for word in walk.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") {
            (file, source) = (word, read(root().join(word)));
            continue;
        }
        let name = word.rsplit("::").next().unwrap_or_default();
        let is_function = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_function && !file.is_empty() {
            let found =
                [format!("fn {name}("), format!("fn {name}<")].iter().any(|head| source.contains(head.as_str()));
            assert!(found, "ARCHITECTURE.md names {word}, which is no function of {file}");
            functions += 1;
        }
    }
    assert!(functions > 30, "only {functions} functions are found on the walk: does this test still read it?");
}

#[test]
fn every_test_that_operators_are_told_of_exists() {
    let text = read(root().join("docs/operations.md"));
    let (_, table) = text.split_once("## Which test shows it").unwrap();
    let (mut file, mut source, mut tests) = ("", String::new(), 0);
    for word in table.split([' ', ',', ';', '|', '\n']) {
        if let Some(path) = word.strip_prefix('`').and_then(|word| word.strip_suffix('`')) {
            (file, source) = (path, if path.ends_with(".rs") { read(root().join(path)) } else { String::new() });
        } else if word.contains('_') {
            assert!(source.contains(&format!("fn {word}(")), "docs/operations.md names {word}, which is not in {file}");
            tests += 1;
        }
    }
    assert!(
        tests > 20,
        "only {tests} tests are found in docs/operations.md: does this one still read it as it is written?"
    );
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
fn every_file_says_what_it_owns() {
    for path in files(&root(), ".rs") {
        assert!(read(&path).starts_with("//!"), "{} does not begin with what it is for", path.display());
    }
}
