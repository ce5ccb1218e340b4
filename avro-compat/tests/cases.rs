//! The comparison agrees with independent checkers, and withstands hostile documents.
//!
//! `data/cases.json` has pairs of schemas and whether each reads the other, according to the checkers of Apache Avro's Java
//! library (1.12.0) and Python library (1.12.1), which agree on all of them. [`Role`] only affects the wording.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use apache_avro::Schema;
use avro_compat::{ErrorType, Level, Role, check};
use serde_json::Value;

struct CheckerCase {
    name: String,
    writer: Schema,
    reader: Schema,
    reads: bool,
    reverse: bool,
}

fn cases() -> Vec<CheckerCase> {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/cases.json")).unwrap();
    cases
        .iter()
        .map(|case| CheckerCase {
            name: case["case"].as_str().unwrap().to_owned(),
            writer: Schema::parse(&case["writer"]).unwrap(),
            reader: Schema::parse(&case["reader"]).unwrap(),
            reads: case["reads"].as_bool().unwrap(),
            reverse: case["reverse"].as_bool().unwrap(),
        })
        .collect()
}

#[test]
fn the_comparison_agrees_with_independent_checkers() {
    let cases = cases();
    assert!(cases.len() >= 90, "only {} cases", cases.len());
    for case in &cases {
        let reasons = check(&case.reader, &case.writer, Role::New);
        assert_eq!(reasons.is_empty(), case.reads, "{}: {reasons:?}", case.name);
        let reasons = check(&case.writer, &case.reader, Role::New);
        assert_eq!(reasons.is_empty(), case.reverse, "{}, in reverse: {reasons:?}", case.name);
    }
}

#[test]
fn each_level_checks_what_it_guarantees() {
    for case in &cases() {
        for level in Level::ALL {
            let expected = match level {
                Level::None => true,
                Level::Backward | Level::BackwardTransitive => case.reads,
                Level::Forward | Level::ForwardTransitive => case.reverse,
                Level::Full | Level::FullTransitive => case.reads && case.reverse,
            };
            // `writer` is the registered version, `reader` the new one.
            let result = level.check(&case.reader, &[&case.writer]);
            assert_eq!(result.is_ok(), expected, "{} at {level}: {result:?}", case.name);
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
fn only_a_transitive_level_compares_versions_before_the_latest() {
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
fn level_names_parse_to_their_level() {
    for level in Level::ALL {
        assert_eq!(level.name().parse(), Ok(level));
    }
    assert!("TOTAL".parse::<Level>().unwrap_err().to_string().contains("FULL_TRANSITIVE"));
}

#[test]
fn a_reason_has_its_kind_and_its_location() {
    let old = record(r#"{"name":"a","type":"int"},{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}}"#);
    let new = record(
        r#"{"name":"a","type":["null","string"]},
           {"name":"e","type":{"type":"enum","name":"E","symbols":["A"]}},
           {"name":"b","type":"string"}"#,
    );
    let reasons = check(&new, &old, Role::New);
    let found: Vec<_> = reasons.iter().map(|reason| (reason.error_type, reason.path.as_str())).collect();
    assert_eq!(
        found,
        [
            (ErrorType::MissingUnionBranch, "/fields/0/type"),
            (ErrorType::MissingEnumSymbols, "/fields/1/type"),
            (ErrorType::ReaderFieldMissingDefaultValue, "/fields/2"),
        ]
    );
    assert_eq!(
        reasons[2].to_string(),
        "{errorType:'READER_FIELD_MISSING_DEFAULT_VALUE', description:'The field 'b' at path '/fields/2' in the new \
         schema has no default value and is missing in the old schema', additionalInfo:'b'}"
    );
}

#[test]
fn a_failed_assumption_is_dropped() {
    // The reader's union first tries A: its B is compatible while A is assumed to be. Then A fails at `stop`, and Z reads the
    // data instead. That must not make the B of the second field compatible.
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
    let reasons = check(&reader, &writer, Role::New);
    assert!(reasons.iter().any(|reason| reason.path.starts_with("/fields/1/")), "{reasons:?}");
}

#[test]
fn a_chain_of_types_deeper_than_the_limit_is_refused() {
    let chain: Vec<String> = (0..2_000)
        .map(|level| match level {
            0 => r#"{"type":"record","name":"R0","fields":[{"name":"a","type":"int"}]}"#.to_owned(),
            _ => format!(r#"{{"type":"record","name":"R{level}","fields":[{{"name":"a","type":"R{}"}}]}}"#, level - 1),
        })
        .collect();
    // The types are defined in a field that the other side lacks, which the comparison does not visit.
    let document = |field: &str| {
        parse(&format!(
            r#"{{"type":"record","name":"Root","fields":[
                {{"name":"{field}","type":{{"type":"array","items":[{}]}},"default":[]}},
                {{"name":"last","type":"R1999"}}]}}"#,
            chain.join(",")
        ))
    };
    let reasons = check(&document("here"), &document("there"), Role::New);
    assert_eq!(reasons.first().map(|reason| reason.error_type), Some(ErrorType::TooComplex), "{reasons:?}");
}

#[test]
fn the_number_of_reasons_is_limited() {
    let fields = |prefix: &str| {
        let fields: Vec<_> = (0..5_000).map(|i| format!(r#"{{"name":"{prefix}{i}","type":"int"}}"#)).collect();
        record(&fields.join(","))
    };
    let reasons = check(&fields("a"), &fields("b"), Role::New);
    assert!((1..=100).contains(&reasons.len()), "{} reasons", reasons.len());
}

#[test]
fn unions_with_too_many_branches_are_refused_in_time() {
    let branches: Vec<_> = (0..1_500).map(|i| format!(r#"{{"type":"record","name":"R{i}","fields":[]}}"#)).collect();
    let union = |branches: &[String]| parse(&format!("[{}]", branches.join(",")));
    // Each branch exists, but at the other end, so that the comparison would try all of them.
    let reversed: Vec<_> = branches.iter().rev().cloned().collect();
    let reasons = check(&union(&branches), &union(&reversed), Role::New);
    assert_eq!(reasons.first().map(|reason| reason.error_type), Some(ErrorType::TooComplex));
    assert!(reasons.len() <= 100, "{} reasons", reasons.len());
    assert!(check(&union(&branches[..300]), &union(&reversed[1_200..]), Role::New).is_empty());
}
