//! The walk against the verdicts of independent checkers, and on documents that mean harm.
//!
//! `data/cases.json` holds pairs of schemas and whether each reads the other, as the checkers of Apache Avro's Java library
//! (1.12.0) and of its Python library (1.12.1) say, in agreement. [`Role`] decides the wording only.

#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

use apache_avro::Schema;
use avro_compat::{ErrorType, Level, Role, check};
use serde_json::Value;

struct Case {
    name: String,
    writer: Schema,
    reader: Schema,
    reads: bool,
    reverse: bool,
}

fn cases() -> Vec<Case> {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/cases.json")).unwrap();
    cases
        .iter()
        .map(|case| Case {
            name: case["case"].as_str().unwrap().to_owned(),
            writer: Schema::parse(&case["writer"]).unwrap(),
            reader: Schema::parse(&case["reader"]).unwrap(),
            reads: case["reads"].as_bool().unwrap(),
            reverse: case["reverse"].as_bool().unwrap(),
        })
        .collect()
}

#[test]
fn the_walk_agrees_with_the_independent_checkers() {
    let cases = cases();
    assert!(cases.len() >= 90, "only {} cases", cases.len());
    for case in &cases {
        let found = check(&case.reader, &case.writer, Role::New);
        assert_eq!(found.is_empty(), case.reads, "{}: {found:?}", case.name);
        let found = check(&case.writer, &case.reader, Role::New);
        assert_eq!(found.is_empty(), case.reverse, "{}, the other way round: {found:?}", case.name);
    }
}

#[test]
fn each_level_asks_what_it_promises() {
    for case in &cases() {
        for level in Level::ALL {
            let expected = match level {
                Level::None => true,
                Level::Backward | Level::BackwardTransitive => case.reads,
                Level::Forward | Level::ForwardTransitive => case.reverse,
                Level::Full | Level::FullTransitive => case.reads && case.reverse,
            };
            // `writer` is the registered version, `reader` the new one.
            let answer = level.check(&case.reader, &[&case.writer]);
            assert_eq!(answer.is_ok(), expected, "{} at {level}: {answer:?}", case.name);
        }
    }
}

fn parse(text: &str) -> Schema {
    Schema::parse_str(text).unwrap()
}

fn record(fields: &str) -> Schema {
    parse(&format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#))
}

#[test]
fn only_a_transitive_level_looks_past_the_latest_version() {
    let first = record(r#"{"name":"a","type":"int"}"#);
    let second = record("");
    let third = record(r#"{"name":"a","type":"string","default":""}"#);
    let earlier = [&first, &second];
    assert!(Level::Full.check(&third, &[&second]).is_ok());
    assert!(Level::Backward.check(&third, &earlier).is_ok());
    assert!(Level::Forward.check(&third, &earlier).is_ok());
    for level in [Level::BackwardTransitive, Level::ForwardTransitive, Level::FullTransitive] {
        assert_eq!(level.check(&third, &earlier).unwrap_err().index, 0, "{level}");
    }
}

#[test]
fn level_names_are_read_and_written() {
    for level in Level::ALL {
        assert_eq!(level.name().parse(), Ok(level));
    }
    assert!("TOTAL".parse::<Level>().unwrap_err().to_string().contains("FULL_TRANSITIVE"));
}

#[test]
fn a_reason_names_its_kind_and_its_place() {
    let old = record(r#"{"name":"a","type":"int"},{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}}"#);
    let new = record(
        r#"{"name":"a","type":["null","string"]},
           {"name":"e","type":{"type":"enum","name":"E","symbols":["A"]}},
           {"name":"b","type":"string"}"#,
    );
    let found = check(&new, &old, Role::New);
    let kinds: Vec<_> = found.iter().map(|reason| (reason.error_type, reason.path.as_str())).collect();
    assert_eq!(
        kinds,
        [
            (ErrorType::MissingUnionBranch, "/fields/0/type"),
            (ErrorType::MissingEnumSymbols, "/fields/1/type"),
            (ErrorType::ReaderFieldMissingDefaultValue, "/fields/2"),
        ]
    );
    assert_eq!(
        found[2].to_string(),
        "{errorType:'READER_FIELD_MISSING_DEFAULT_VALUE', description:'The field 'b' at path '/fields/2' in the new \
         schema has no default value and is missing in the old schema', additionalInfo:'b'}"
    );
}

#[test]
fn an_assumption_that_failed_is_forgotten() {
    // The reader's union first tries A: its B holds as long as A is assumed to hold, then A fails at `stop`, and Z reads it
    // instead. The B of the second field must not count as compatible because of that.
    let writer = record(
        r#"{"name":"first","type":{"type":"record","name":"A","fields":[
               {"name":"next","type":{"type":"record","name":"B","fields":[{"name":"back","type":["null","A"]}]}},
               {"name":"stop","type":"string"}]}},
           {"name":"second","type":"B"}"#,
    );
    let reader = record(
        r#"{"name":"first","type":[
               {"type":"record","name":"A","fields":[
                   {"name":"next","type":{"type":"record","name":"B","fields":[{"name":"back","type":["null","A"]}]}},
                   {"name":"stop","type":"int"}]},
               {"type":"record","name":"Z","aliases":["A"],"fields":[]}]},
           {"name":"second","type":"B"}"#,
    );
    let found = check(&reader, &writer, Role::New);
    assert!(found.iter().any(|reason| reason.path.starts_with("/fields/1/")), "{found:?}");
}

#[test]
fn a_chain_of_types_longer_than_any_stack_is_refused() {
    let chain: Vec<String> = (0..2_000)
        .map(|level| match level {
            0 => r#"{"type":"record","name":"R0","fields":[{"name":"a","type":"int"}]}"#.to_owned(),
            _ => format!(r#"{{"type":"record","name":"R{level}","fields":[{{"name":"a","type":"R{}"}}]}}"#, level - 1),
        })
        .collect();
    // The types are defined where the walk does not go: in a field that the other side lacks.
    let document = |field: &str| {
        parse(&format!(
            r#"{{"type":"record","name":"Root","fields":[
                {{"name":"{field}","type":{{"type":"array","items":[{}]}},"default":[]}},
                {{"name":"last","type":"R1999"}}]}}"#,
            chain.join(",")
        ))
    };
    let found = check(&document("here"), &document("there"), Role::New);
    assert_eq!(found.first().map(|reason| reason.error_type), Some(ErrorType::TooComplex), "{found:?}");
}

#[test]
fn the_list_of_reasons_is_bounded() {
    let fields = |prefix: &str| {
        let fields: Vec<_> = (0..5_000).map(|i| format!(r#"{{"name":"{prefix}{i}","type":"int"}}"#)).collect();
        record(&fields.join(","))
    };
    let found = check(&fields("a"), &fields("b"), Role::New);
    assert!((1..=100).contains(&found.len()), "{} reasons", found.len());
}

#[test]
fn unions_with_too_many_branches_to_pair_are_refused_in_time() {
    let branches: Vec<_> = (0..1_500).map(|i| format!(r#"{{"type":"record","name":"R{i}","fields":[]}}"#)).collect();
    let union = |branches: &[String]| parse(&format!("[{}]", branches.join(",")));
    // Each branch is there, but at the other end, so that the walk would try them all.
    let reversed: Vec<_> = branches.iter().rev().cloned().collect();
    let found = check(&union(&branches), &union(&reversed), Role::New);
    assert_eq!(found.first().map(|reason| reason.error_type), Some(ErrorType::TooComplex));
    assert!(found.len() <= 100, "{} reasons", found.len());
    assert!(check(&union(&branches[..300]), &union(&reversed[1_200..]), Role::New).is_empty());
}
