//! Valid and invalid declaration files, and the problems that are reported.

use projector::{Declaration, declaration::DeclarationError};

const VALID: &str = r#"name = "trip"
title = "Trip"
start = ["trips.Booked"]
exclusive = [["trips.Done", "trips.Cancelled"]]
[owners]
trips = "the trip desk"
hotel = "the hotel"
[[step]]
id = "book"
title = "Booked"
owner = "trips"
completed_by = ["trips.Booked"]
deadline = "30s"
[[step]]
id = "room"
title = "Room"
owner = "hotel"
after = ["book"]
completed_by = ["hotel.Reserved"]
failed_by = ["hotel.Full"]
deadline = "10m"
waiting = "Booked; waiting for {owner}"
[cancel]
id = "cancel"
title = "Cancelled"
owner = "trips"
completed_by = ["trips.Cancelled"]
deadline = "30s"
[[compensation]]
id = "free"
title = "Room freed"
owner = "hotel"
completed_by = ["hotel.Freed"]
deadline = "1h"
[[outcome]]
name = "done"
kind = "completed"
when = ["hotel.Reserved"]
settled_by = ["room"]
sentence = "Done"
[[outcome]]
name = "off"
kind = "compensated"
when = ["trips.Cancelled"]
settled_by = ["free"]
sentence = "Off"
"#;

/// The problems of the file after `from` is replaced by `to`.
fn problems_of(from: &str, to: &str) -> String {
    assert!(VALID.contains(from), "{from:?} is in the file");
    match Declaration::parse("trip.toml", &VALID.replacen(from, to, 1)) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_shipped_declarations_are_valid() {
    let shipped = Declaration::shipped().expect("the shipped declarations are valid");
    let topics: Vec<Vec<String>> = shipped.iter().map(|declaration| declaration.topics_in("acme")).collect();
    let of = |owners: &[&str]| owners.iter().map(|owner| format!("acme.{owner}.events")).collect::<Vec<_>>();
    let orders = of(&["loyalty", "notifications", "order-processor", "payment", "warehouse"]);
    assert_eq!(topics, [orders, of(&["customers", "loyalty", "notifications"])]);
    assert_eq!(problems_of("trip", "trip"), "");
}

/// A saga that waits for an event that no service produces would never end.
#[test]
fn every_event_of_the_shipped_declarations_has_a_schema() {
    let schemas = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    for event in Declaration::shipped()
        .expect("the shipped declarations are valid")
        .iter()
        .flat_map(|declaration| &declaration.events)
    {
        let (owner, record) = event.name.rsplit_once('.').expect("owner.Record");
        let path = schemas.join(owner.replace('_', "-")).join("events").join(record).join("v1.avsc");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let schema: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let Some(condition) = &event.condition else { continue };
        let fields = schema["fields"].as_array().expect("fields");
        let field = fields.iter().find(|field| field["name"] == condition.path.as_str());
        let field = field.unwrap_or_else(|| panic!("{event}: there is no such field"));
        let symbols = field["type"]["symbols"].as_array().unwrap_or_else(|| panic!("{event}: that field is no enum"));
        assert!(symbols.iter().any(|symbol| symbol == condition.value.as_str()), "{event}: {symbols:?}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let text = problems_of("deadline = \"10m\"", "deadlin = \"10m\"");
    assert!(text.contains("line 21") && text.contains("unknown field `deadlin`"), "{text}");
    assert!(problems_of("title = \"Trip\"\n", "").contains("missing field `title`"));
}

#[test]
fn every_problem_is_reported_with_its_line_and_a_hint() {
    for (from, to, line, expected_text) in [
        ("owner = \"hotel\"", "owner = \"hotle\"", 17, "\"hotle\" is not among [owners]; did you mean \"hotel\"?"),
        (
            "after = [\"book\"]",
            "after = [\"boook\"]",
            18,
            "after names \"boook\", which is not a step; did you mean \"book\"?",
        ),
        ("after = [\"book\"]", "after = [\"room\"]", 15, "step \"room\" comes after itself"),
        ("\"10m\"", "\"10 minutes\"", 21, "the deadline \"10 minutes\" is not like"),
        ("\"10m\"", "\"99999999999999999d\"", 21, "is not like"),
        ("completed_by = [\"hotel.Reserved\"]", "completed_by = []", 19, "completed_by names no event"),
        ("[\"hotel.Reserved\"]", "[\"hotel.Reserved\", \"hotel.Reserved\"]", 19, "names \"hotel.Reserved\" twice"),
        ("[\"hotel.Full\"]", "[\"hotel.Reserved\"]", 15, "completed_by and failed_by can both mean"),
        ("[\"hotel.Full\"]", "[\"Reserved\"]", 20, "can mean the same event"),
        ("[\"hotel.Full\"]", "[\"hotel.Full[why\"]", 20, "opens a [condition] and does not close it"),
        ("{owner}", "{ower}", 22, "unknown placeholder {ower}"),
        ("waiting = \"Booked", "failed = \"Booked", 22, "failed is a sentence for steps with attention = true"),
        ("kind = \"completed\"", "kind = \"complete\"", 37, "did you mean \"completed\"?"),
        ("when = [\"hotel.Reserved\"]", "when = [\"hotel.Reservd\"]", 38, "can never be reached"),
        (
            "when = [\"trips.Cancelled\"]",
            "when = [\"hotel.Reserved\"]",
            44,
            "\"done\" comes first and requires no other event",
        ),
        (
            "settled_by = [\"free\"]",
            "settled_by = [\"fre\"]",
            45,
            "which is not a step or compensation; did you mean \"free\"?",
        ),
        ("id = \"room\"", "id = \"book\"", 15, "\"book\" is the id of two steps"),
        ("name = \"off\"", "name = \"done\"", 42, "two outcomes are called \"done\""),
        ("\"trips.Done\", \"trips.Cancelled\"", "\"trips.Done\"", 4, "at least two events"),
        ("name = \"trip\"", "name = \"My Trip\"", 1, "must be 1 to 64 of the characters"),
    ] {
        let text = problems_of(from, to);
        let expected = format!("line {line}: ");
        let found = text
            .lines()
            .find(|line| line.contains(expected_text))
            .unwrap_or_else(|| panic!("{expected_text:?} is not in {text}"));
        assert!(found.contains(&expected), "{found:?} should be at line {line}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let broken = VALID.replace("\"10m\"", "\"soon\"").replace("owner = \"hotel\"", "owner = \"nobody\"");
    match Declaration::parse("trip.toml", &broken) {
        Err(DeclarationError::Invalid { problems, .. }) => assert_eq!(problems.len(), 3, "{problems:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_declarations_of_one_name_conflict() {
    let one = Declaration::parse("trip.toml", VALID).expect("valid");
    let error = projector::SagaView::new(&[one.clone(), one], 1).expect_err("two of a name");
    assert!(error.to_string().contains("two of them are named \"trip\""), "{error}");
}
