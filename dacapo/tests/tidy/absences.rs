//! The absences that ARCHITECTURE.md states: each of its lines names the tests here that enforce it.

use std::collections::{BTreeMap, BTreeSet};

use super::{SERVICES, VIEWS, dependencies, duplicates, files, line_of_code, read, root, shipped_code};

/// The crates that ship, services aside: each is linked into a program that somebody runs in production.
const SHIPPED: [&str; 7] =
    ["avro-compat", "record-batch", "runtime-core", "runtime", "embedded", "projector", "dacapo"];

/// The crates that test and measure. Nothing that ships depends on them.
const TOOLS: [&str; 4] = ["bench", "chaos", "conformance", "simulation"];

fn services() -> impl Iterator<Item = &'static str> {
    SERVICES.into_iter().chain(VIEWS)
}

fn name_of(service: &str) -> &str {
    service.rsplit('/').next().unwrap()
}

fn depends_on(member: &str) -> BTreeSet<String> {
    dependencies(&read(root().join(member).join("Cargo.toml")))
}

/// Every word of the shipped code of a crate's sources, with the place where it stands: comments and unit tests are left out.
fn words_of(folder: &str) -> Vec<(String, String)> {
    let mut words = Vec::new();
    for path in files(&root().join(folder), ".rs") {
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        for (number, line) in shipped_code(&read(&path)) {
            let split = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != '-');
            words.extend(
                split.filter(|word| !word.is_empty()).map(|word| (word.to_owned(), format!("{shown}:{number}"))),
            );
        }
    }
    words
}

/// Owners and record names of the schemas that belong to MusicCorp, not to the runtime or the projector.
fn words_of_musiccorp() -> BTreeSet<String> {
    let schemas = root().join("schemas");
    let mut words = BTreeSet::new();
    for path in files(&schemas, ".avsc") {
        let parts: Vec<String> =
            path.strip_prefix(&schemas).unwrap().iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let (owner, record) = (&parts[0], &parts[2]);
        if !["runtime", "projector", "operator"].contains(&owner.as_str()) {
            words.extend([owner.clone(), record.clone()]);
        }
    }
    words
}

#[test]
fn the_lists_of_services_and_crates_are_complete() {
    let mut expected: BTreeSet<String> = services().chain(SHIPPED).chain(TOOLS).map(str::to_owned).collect();
    for path in files(&root(), "Cargo.toml") {
        let folder = path.parent().unwrap().strip_prefix(root()).unwrap().display().to_string();
        assert!(
            folder.is_empty() || expected.remove(&folder),
            "{folder} is in none of the lists that the rules are for"
        );
    }
    assert!(expected.is_empty(), "these crates do not exist: {expected:?}");
}

#[test]
fn no_service_depends_on_another() {
    let names: BTreeSet<&str> = services().map(name_of).collect();
    for service in services() {
        for dependency in depends_on(service) {
            assert!(
                !names.contains(dependency.as_str())
                    && !["projector", "dacapo", "dacapo-embedded"].contains(&dependency.as_str()),
                "{service} depends on {dependency}: services share the runtime and schemas/, nothing else"
            );
        }
    }
}

#[test]
fn the_arrows_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("avro-compat", &[][..]),
        ("record-batch", &[][..]),
        ("runtime-core", &[][..]),
        ("runtime", &["avro-compat", "dacapo-runtime-core", "record-batch"]),
        ("embedded", &["avro-compat", "record-batch"]),
        ("projector", &["dacapo-runtime"]),
    ]);
    let ours: BTreeSet<String> = services()
        .chain(SHIPPED)
        .chain(TOOLS)
        .map(|member| {
            let manifest: toml::Table = toml::from_str(&read(root().join(member).join("Cargo.toml"))).unwrap();
            manifest["package"]["name"].as_str().unwrap().to_owned()
        })
        .collect();
    for (member, may) in allowed {
        for dependency in depends_on(member) {
            assert!(
                !ours.contains(&dependency) || may.contains(&dependency.as_str()),
                "{member} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn decide_and_evolve_are_pure() {
    let banned = [
        "tokio",
        "reqwest",
        "axum",
        "runtime::clock",
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "std::process",
        "std::io",
        "SystemTime",
        "Instant",
        "now_v7",
        "new_v4",
        "rand",
        "tracing::",
        "println!",
        "async ",
        "HashMap",
        "Mutex",
        "RefCell",
        "Atomic",
    ];
    // These answer requests or call external services. Every other file of a service may be called by `decide` or `evolve`.
    let not_deciding = [
        "effects.rs",
        "edge.rs",
        "folder.rs",
        "http.rs",
        "lib.rs",
        "lookups.rs",
        "main.rs",
        "order_status.rs",
        "request.rs",
    ];
    let mut read_files = 0;
    for service in SERVICES {
        for path in files(&root().join(service).join("src"), ".rs") {
            let shown = path.strip_prefix(root()).unwrap().display().to_string();
            if not_deciding.contains(&path.file_name().unwrap().to_str().unwrap()) {
                continue;
            }
            read_files += 1;
            for (number, line) in shipped_code(&read(&path)) {
                let word = banned.iter().find(|word| line.contains(**word));
                assert!(word.is_none(), "{shown}:{number} names {}: a decision sees only its input", word.unwrap());
            }
        }
    }
    assert!(read_files > 35, "only {read_files} files are read: does this test still find the deciders?");
}

#[test]
fn the_runtime_and_the_projector_know_no_order() {
    let musiccorp = words_of_musiccorp();
    assert!(musiccorp.len() > 70, "only {} words of MusicCorp are found in schemas/", musiccorp.len());
    for folder in ["runtime-core/src", "runtime/src", "projector/src"] {
        for (word, place) in words_of(folder) {
            assert!(!musiccorp.contains(&word), "{place} names {word}, which is MusicCorp's");
        }
        for path in files(&root().join(folder), ".rs") {
            for (number, line) in shipped_code(&read(&path)) {
                // A topic begins with the system; the one constant without a dot is the system that schema files are written for.
                assert!(!line.contains("musiccorp."), "{}:{number} names a topic of MusicCorp", path.display());
            }
        }
    }
}

#[test]
fn only_the_named_crates_know_kafka_avro_the_registry_and_the_store() {
    let allowed: [(&str, &[&str]); 5] = [
        ("rdkafka", &["runtime", "bench", "conformance"]),
        ("kafka-protocol", &["runtime", "embedded", "chaos", "conformance"]),
        ("apache-avro", &["runtime-core", "runtime", "embedded", "avro-compat"]),
        ("schema_registry_converter", &["runtime", "conformance"]),
        ("sled", &["runtime"]),
    ];
    for (library, may) in allowed {
        let knows = services().chain(SHIPPED).chain(TOOLS).filter(|member| depends_on(member).contains(library));
        let (knows, may): (BTreeSet<&str>, BTreeSet<&str>) = (knows.collect(), may.iter().copied().collect());
        assert_eq!(knows, may, "{library}: ARCHITECTURE.md names every crate that may depend on it");
    }
    let speak_to_the_registry = ["runtime", "embedded", "conformance", "chaos", "bench"];
    for member in services().chain(SHIPPED).chain(TOOLS).filter(|member| !speak_to_the_registry.contains(member)) {
        for path in files(&root().join(member).join("src"), ".rs") {
            for (number, line) in shipped_code(&read(&path)) {
                let asks = ["/subjects", "/schemas/ids"].iter().any(|route| line.contains(route));
                assert!(!asks, "{}:{number} speaks to the registry itself", path.display());
            }
        }
    }
}

#[test]
fn the_core_depends_on_nothing_that_does_io() {
    let dependencies = depends_on("runtime-core");
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
    for method in [
        "std::time::Instant::now",
        "std::time::SystemTime::now",
        "std::thread::spawn",
        "std::fs::read",
        "std::fs::copy",
        "std::path::Path::exists",
        "std::path::Path::is_file",
        "std::path::Path::canonicalize",
        "std::io::stdin",
        "std::env::var",
        "std::env::args",
        "std::env::current_dir",
        "jiff::Timestamp::now",
        "jiff::Zoned::now",
        "uuid::Uuid::now_v7",
        "uuid::Uuid::new_v4",
    ] {
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

#[test]
fn names_of_records_do_not_depend_on_their_bytes() {
    let message = read(root().join("runtime-core/src/message.rs"));
    for (number, line) in shipped_code(&message) {
        assert!(!line.contains("codec::"), "message.rs:{number} names codec, which depends on message");
    }
}

#[test]
fn no_rule_of_the_turn_is_written_twice() {
    let sources = duplicates::sources(&root()).unwrap();
    let found = duplicates::duplicates(&sources);
    assert!(found.is_empty(), "{found:#?}");
    for (part, _) in duplicates::PARTS {
        assert!(sources.iter().any(|source| source.part == part), "the part {part} has no file");
    }
}

#[test]
fn a_rule_that_is_copied_under_other_names_is_found() {
    let mut sources = duplicates::sources(&root()).unwrap();
    let turn = sources.iter().find(|source| source.path == "runtime-core/src/turn/gathering.rs").unwrap();
    let copied = turn.text.replace("offer", "propose").replace("batch", "bundle");
    let path = "simulation/src/copied.rs".to_owned();
    sources.push(duplicates::Source { part: "simulation", path, text: copied });
    let found = duplicates::duplicates(&sources);
    assert!(found.iter().any(|line| line.starts_with("simulation/src/copied.rs")), "{found:?}");
    sources.pop();
    for (part, missed) in [("worker", "runtime-core/src/machine.rs"), ("table", "runtime-core/src/task.rs")] {
        let text = sources.iter().find(|source| source.path == missed).unwrap().text.clone();
        sources.push(duplicates::Source { part, path: format!("a copy of {missed}"), text });
        assert!(!duplicates::duplicates(&sources).is_empty(), "a copy of {missed} in the {part} is not found");
        sources.pop();
    }
}

/// The owners that a `produces!` or a `consumes!` in this code names, with the channel: (`events`, `warehouse`).
fn channels(code: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for channel in ["events", "inbox", "state"] {
        for rest in code.split(&format!("{channel} of \"")).skip(1) {
            found.push((channel.to_owned(), rest.split('"').next().unwrap().to_owned()));
        }
    }
    found
}

/// The bodies of a macro's invocations in the shipped code below a folder.
fn invocations(folder: &str, name: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in files(&root().join(folder), ".rs") {
        let code: String = shipped_code(&read(&path)).iter().fold(String::new(), |code, (_, line)| code + line + "\n");
        for rest in code.split(&format!("{name} {{")).skip(1) {
            let body = rest.split("\n}").next().unwrap().to_owned();
            found.push((path.strip_prefix(root()).unwrap().display().to_string(), body));
        }
    }
    found
}

#[test]
fn only_the_owner_can_write_events_and_statuses() {
    // What a crate can write is what its `produces!` lists: a type without that has no bytes.
    let mut writers: BTreeMap<String, String> = BTreeMap::new();
    for member in services().chain(SHIPPED) {
        for (path, body) in invocations(&format!("{member}/src"), "produces!") {
            for (channel, owner) in channels(&body) {
                // Operators have no crate: the core has their commands and their decisions.
                let is_of_core = [("inbox", "runtime"), ("events", "operator")].contains(&(&channel, &owner));
                let is_its_own = owner == name_of(member) || (is_of_core && member == "runtime-core");
                assert!(is_its_own, "{path} writes {channel} of {owner}: only the owner does");
                if channel != "inbox" {
                    writers.insert(format!("{channel} of {owner}"), path.clone());
                }
            }
        }
    }
    let all: BTreeSet<&str> = writers.keys().map(String::as_str).collect();
    let mut expected: BTreeSet<String> =
        SERVICES.iter().map(|service| format!("events of {}", name_of(service))).collect();
    expected.extend(["state of projector".to_owned(), "events of operator".to_owned()]);
    assert_eq!(all, expected.iter().map(String::as_str).collect());
}

#[test]
fn only_four_files_can_send_a_record_to_a_topic() {
    // The transaction of a batch, an answer of an effect, a row of a table, and the publisher, which checks who may write where.
    let senders: BTreeSet<&str> = BTreeSet::from([
        "runtime/src/publisher.rs",
        "runtime/src/table.rs",
        "runtime/src/worker/effects.rs",
        "runtime/src/worker/commit.rs",
    ]);
    let mut found = BTreeSet::new();
    for member in services().chain(SHIPPED) {
        for path in files(&root().join(member).join("src"), ".rs") {
            let shown = path.strip_prefix(root()).unwrap().display().to_string();
            let code = shipped_code(&read(&path));
            if code.iter().any(|(_, line)| line.contains("BaseRecord::") || line.contains("FutureRecord::")) {
                found.insert(shown);
            }
        }
    }
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), senders);
    let publisher = read(root().join("runtime/src/publisher.rs"));
    assert!(publisher.contains("Authority::Operator"), "the publisher no longer checks who may write where");
}

#[test]
fn the_audit_shares_no_code_with_the_deciders() {
    let services: BTreeSet<String> = services().map(|service| name_of(service).replace('-', "_")).collect();
    let own = ["crate::musiccorp::SERVICES", "crate::{output, target::Target}"];
    for path in files(&root().join("dacapo/src/audit"), ".rs") {
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        for (number, line) in shipped_code(&read(&path)) {
            for (head, _) in line.match_indices("::") {
                let word = line[..head].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                assert!(!services.contains(word), "{shown}:{number} uses the code of {word}");
            }
            let named = line.contains("crate::") && !line.contains("super::");
            assert!(
                !named || own.iter().any(|own| line.contains(own)),
                "{shown}:{number} uses other code of dacapo: {line}"
            );
            let imported = line.trim().trim_start_matches("use ").split([':', ';', ' ']).next().unwrap_or_default();
            assert!(
                !services.contains(imported) || !line.trim().starts_with("use "),
                "{shown}:{number} imports {imported}"
            );
        }
    }
}

#[test]
fn nothing_that_ships_knows_chaos_the_simulation_or_its_mutants() {
    for member in services().chain(SHIPPED) {
        let dependencies = depends_on(member);
        for tool in TOOLS {
            assert!(!dependencies.contains(tool), "{member} depends on {tool}");
        }
        for path in files(&root().join(member).join("src"), ".rs") {
            for (number, line) in read(&path).to_lowercase().lines().enumerate() {
                assert!(!line.contains("mutant"), "{}:{} names a mutant", path.display(), number + 1);
                let code = line_of_code(line);
                assert!(!code.contains("chaos"), "{}:{} names chaos", path.display(), number + 1);
            }
        }
        let manifest: toml::Table = toml::from_str(&read(root().join(member).join("Cargo.toml"))).unwrap();
        assert!(manifest.get("features").is_none(), "{member} has features: a weakening could hide behind one");
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
fn what_is_due_is_a_function_of_the_state() {
    let decider = read(root().join("runtime-core/src/decider.rs"));
    for head in ["fn pending(&self, _state: &Self::State)", "fn wake_at(&self, _state: &Self::State)"] {
        assert!(decider.contains(head), "runtime-core/src/decider.rs has no {head}");
    }
    // A service remembers nothing beside its states: neither its decider nor its effects have anything that could change.
    for service in SERVICES {
        for (word, place) in words_of(&format!("{service}/src")) {
            let changes = ["Mutex", "RwLock", "RefCell", "Cell", "OnceLock", "OnceCell", "LazyLock", "thread_local"];
            let may = place.contains("/edge.rs") || place.contains("/lookups.rs") || place.contains("/http.rs");
            assert!(may || (!changes.contains(&word.as_str()) && !word.starts_with("Atomic")), "{place} names {word}");
        }
    }
    // A checkpoint has states and positions, and nothing that is due.
    for (file, head, end) in [
        ("runtime-core/src/task.rs", "pub struct TaskCheckpoint {", "\n}"),
        ("runtime-core/src/entity.rs", "fn to_bytes(&self)", "\n    }"),
    ] {
        let text = read(root().join(file));
        let (_, saved) = text.split_once(head).unwrap();
        let saved = saved.split(end).next().unwrap().to_lowercase();
        for line in saved.lines().map(line_of_code) {
            let kept = ["due", "effect", "timer", "wake"].into_iter().find(|word| line.contains(word));
            assert!(kept.is_none(), "{file}: {head} saves {}", kept.unwrap());
        }
    }
}

#[test]
fn every_absence_names_the_test_that_enforces_it() {
    let text = read(root().join("ARCHITECTURE.md"));
    let (_, section) = text.split_once("## What must not be known").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let folder = root().join("dacapo/tests");
    let tests = read(folder.join("tidy.rs")) + &read(folder.join("tidy/absences.rs"));
    let lines: Vec<&str> = section.lines().filter(|line| line.starts_with("- ")).collect();
    assert!(lines.len() >= 11, "only {} absences are found: does this test still read them?", lines.len());
    for line in lines {
        let (_, named) = line.rsplit_once(" (").unwrap_or_else(|| panic!("no test enforces: {line}"));
        let mut names = named.split('`').skip(1).step_by(2).peekable();
        assert!(names.peek().is_some(), "no test enforces: {line}");
        for name in names {
            assert!(tests.contains(&format!("fn {name}()")), "{line}\nnames {name}, which is no test of tidy");
        }
    }
}
