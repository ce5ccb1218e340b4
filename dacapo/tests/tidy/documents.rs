//! What the documents name exists, and is in the file that they name.

use super::{files, read, root};

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
