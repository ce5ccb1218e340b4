//! What the documents name exists, and is in the file that they name.

use super::{files, line_of_code, read, root};

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
fn every_function_on_the_walk_is_in_the_named_file() {
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
fn every_test_that_operations_names_exists() {
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
fn every_mutant_is_described() {
    let list = read(root().join("simulation/src/mutant.rs"));
    let (_, list) = list.split_once("\nmutants! {").unwrap();
    let names: Vec<&str> = list.split(" = \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(names.len() >= 20, "only {} mutants are found: does this test still read them?", names.len());
    let text = read(root().join("docs/simulation.md"));
    for name in &names {
        assert!(text.contains(&format!("\n| `{name}` | ")), "docs/simulation.md does not describe the mutant {name}");
    }
    let (_, section) = text.split_once("## Mutants").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    assert_eq!(
        section.matches("\n| `").count(),
        names.len(),
        "docs/simulation.md describes a mutant that does not exist"
    );
}

/// The lines of Rust code without comments, indentation and empty lines.
fn bare_lines(code: &str) -> Vec<String> {
    let lines = code.lines().map(|line| line_of_code(line).trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_rust_in_the_documents_is_code_that_is_compiled() {
    let example = bare_lines(&read(root().join("simulation/tests/custom_service.rs")));
    let mut parts = 0;
    for path in files(&root().join("docs"), ".md")
        .into_iter()
        .chain(["README.md", "ARCHITECTURE.md"].map(|name| root().join(name)))
    {
        for block in read(&path).split("```rust\n").skip(1) {
            for part in block.split("\n```").next().unwrap().split("\n\n") {
                let lines = bare_lines(part);
                let found = example.windows(lines.len()).any(|window| window == lines);
                assert!(found, "{}: simulation/tests/custom_service.rs has no such code:\n{part}", path.display());
                parts += 1;
            }
        }
    }
    assert!(parts >= 5, "only {parts} pieces of Rust are found: does this test still read them?");
}

#[test]
fn schemas_and_documents_use_the_words_of_the_glossary() {
    let old = [
        "heard",
        "hears",
        "heeds",
        "whoever",
        "said",
        "told",
        "laid aside",
        "set aside",
        "put aside",
        "goes on",
        "go on",
        "somebody",
        "external system",
        "external systems",
    ];
    let mut texts = Vec::new();
    for path in files(&root().join("schemas"), ".avsc").into_iter().chain(files(&root().join("docs"), ".md")) {
        texts.push((path.strip_prefix(root()).unwrap().display().to_string(), read(&path)));
    }
    texts.extend(["README.md", "ARCHITECTURE.md"].map(|name| (name.to_owned(), read(root().join(name)))));
    for (name, text) in texts {
        let words: Vec<&str> = text
            .split(|letter: char| !letter.is_alphanumeric() && letter != '-')
            .filter(|word| !word.is_empty())
            .collect();
        let words = format!(" {} ", words.join(" ").to_lowercase());
        for old in old {
            assert!(
                !words.contains(&format!(" {old} ")),
                "{name} says \"{old}\": docs/glossary.md has the words to use"
            );
        }
        assert!(
            !name.ends_with(".avsc") || !words.contains(" edge "),
            "{name} says \"edge\", which readers of a topic do not know"
        );
    }
}
