//! The published schema.

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::world::{World, record};

fn schema() -> Validator {
    let schema: Value = serde_json::from_str(include_str!("../../../../docs/audit.schema.json")).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

fn lines() -> Vec<Value> {
    let world = World::new();
    let log = world.log();
    for number in 0..12 {
        log.append(&record(number)).unwrap();
    }
    drop(log);
    let content = std::fs::read(world.file()).unwrap();
    std::fs::write(world.file(), [&content[..], b"{\"schema_version\":1,\"se"].concat()).unwrap();
    world.log().append(&record(13)).unwrap();
    let lines = world.lines();
    let whole = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>();
    assert_eq!(whole.len(), lines.len() - 1);
    whole
}

#[test]
fn every_line_that_is_written_is_what_the_schema_says() {
    let schema = schema();
    let lines = lines();
    assert!(lines.iter().any(|it| it["after_torn"] == true));
    assert!(lines.iter().any(|it| it["event"] == "decision" && it["rule"].is_null()));
    for line in lines {
        assert!(schema.is_valid(&line), "{line}: {:?}", schema.validate(&line).map_err(|it| it.to_string()));
    }
}

#[test]
fn the_schema_refuses_what_is_not_written() {
    let schema = schema();
    for (at, field, value) in [
        (0, "other", json!(1)),
        (0, "seq", json!(0)),
        (0, "hash", json!("AB")),
        (0, "class", json!("root")),
        (0, "event", json!("effect")),
        (0, "schema_version", json!(2)),
        (0, "after_torn", json!(false)),
        (1, "bytes", json!(-1)),
        (2, "target", json!("x")),
    ] {
        let mut line = lines().swap_remove(at);
        line[field] = value;
        assert!(!schema.is_valid(&line), "{line}");
    }
    for field in ["prev", "hash", "call", "permit", "rule"] {
        let mut line = lines().swap_remove(0);
        line.as_object_mut().unwrap().remove(field).unwrap();
        assert!(!schema.is_valid(&line), "{line}");
    }
}
