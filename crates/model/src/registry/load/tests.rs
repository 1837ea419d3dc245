//! Registries are read as written, and a mistake is found by its line and key.

use super::*;
use crate::Value;

const TOML: &str = r#"
[types.pump]
description = "Moves water"

[types.pump.keys.temperature]
type = "float"
unit = "Cel"
min = -40
max = 150.5
description = "Of the bearing"

[[devices]]
id = "pump-7"
type = "pump"
location = "Hall 3"
name = "Feed pump 7"

[[devices]]
id = "pump-8"
tenant = "acme"
type = "pump"
[devices.keys.speed]
type = "int"
"#;

fn load(files: &[(&str, &str)]) -> Result<Registry, String> {
    let files = files.iter().map(|(name, text)| (*name, text.as_bytes()));
    Registry::load(files).map_err(|error| error.to_string())
}

#[test]
fn toml_gives_devices_and_the_keys_of_their_types() {
    let registry = load(&[("devices.toml", TOML)]).expect("a registry");
    assert_eq!(registry.len(), 2);
    let device = registry.get("default", "pump-7").expect("listed");
    assert_eq!(device.name.as_deref(), Some("Feed pump 7"));
    assert_eq!(device.location.as_deref(), Some("Hall 3"));
    let key = device.keys.get("temperature").expect("defined");
    assert_eq!((key.unit.as_deref(), key.min, key.max), (Some("Cel"), Some(-40.0), Some(150.5)));
    assert_eq!(key.check(&Value::Int(151)).expect_err("refused").code(), "out_of_bounds");
    let own = registry.get("acme", "pump-8").expect("listed");
    assert!(own.keys.get("speed").is_some() && own.keys.get("temperature").is_some());
    assert!(device.keys.get("speed").is_none());
}

#[test]
fn csv_and_toml_are_one_registry_in_any_order() {
    let devices = "\u{feff}device,name,location,type\r\n\
                   pump-1,\"Pump, the \"\"first\"\"\",Hall 1,pump\r\n\r\n\
                   pump-2,,\"Hall\n2\",\r\n";
    let broken = load(&[("devices.csv", devices)]).expect_err("a location of two lines");
    assert_eq!(
        broken,
        "devices.csv line 4: device \"pump-2\": location has a character that is not allowed at \
         byte 4"
    );
    let devices = devices.replace("Hall\n2", "Hall 2");
    let keys = "type,key,data_type,unit,min,max\npump,t,float,Cel,-1,\n";
    for files in [
        [("devices.csv", devices.as_str()), ("keys.csv", keys)],
        [("keys.csv", keys), ("devices.csv", devices.as_str())],
    ] {
        let registry = load(&files).expect("a registry");
        let device = registry.get("default", "pump-1").expect("listed");
        assert_eq!(device.name.as_deref(), Some("Pump, the \"first\""));
        assert_eq!(device.keys.get("t").and_then(|key| key.min), Some(-1.0));
        assert!(registry.get("default", "pump-2").expect("listed").device_type.is_none());
    }
    let both = load(&[("d.csv", "device\npump-7\n"), ("devices.toml", TOML)]);
    let expected = "devices.toml line 12: device pump-7 of tenant default is listed twice";
    assert_eq!(both.expect_err("twice"), expected);
}

#[test]
fn mistakes_are_found_by_line_and_key() {
    for (name, text, expected) in [
        ("a.toml", "[types.p.keys.t]\nunits = 1\n", "line 2: unknown field `units`"),
        ("a.toml", "[types.p.keys.t]\n\nmin = \"x\"\n", "line 3: invalid type: string \"x\""),
        ("a.toml", "\n[types.p.keys.t]\ntype = \"double\"\n", "type of key \"t\" is \"double\""),
        (
            "a.toml",
            "[types.p.keys.t]\nmin = 2\nmax = 1\n",
            "min of key \"t\" is 2, above its max 1",
        ),
        ("a.toml", "[types.p.keys.t]\ntype = \"text\"\nmin = 1\n", "bounds what is no number"),
        ("a.toml", "[[devices]]\nname = \"x\"\n", "line 1: missing field `id`"),
        ("a.toml", "x = [\n", "line"),
        ("a.toml", "[[devices]]\nid = \"a/b\"\n", "line 1: device \"a/b\""),
        ("a.csv", "", "line 1: the first line must name the columns"),
        ("a.csv", "device,colour\n", "line 1: unknown column \"colour\""),
        ("a.csv", "name,location\n", "line 1: unknown column \"name\""),
        ("a.csv", "type,unit\n", "line 1: column \"key\" is missing"),
        ("a.csv", "device,name\na\n", "line 2: 1 fields where the first line names 2 columns"),
        ("a.csv", "device\na\n\na\n", "line 4: device a of tenant default is listed twice"),
        ("a.csv", "type,key,min\np,t,low\n", "line 2: min of key \"t\" is \"low\", not a number"),
        ("a.csv", "type,key\np,t\np,t\n", "line 3: key \"t\" of type \"p\" is there twice"),
        ("a.csv", "device\n\"a\n", "line 2: a quote is not closed"),
        ("a.csv", "device\n\"a\"b\n", "line 2: text after a closing quote"),
        ("a.json", "{}", "ends neither in .toml nor .csv"),
    ] {
        let error = load(&[(name, text)]).expect_err(text);
        assert!(error.contains(expected) && error.contains(" line "), "{text:?}: {error}");
    }
    let binary = Registry::load([("a.csv", b"device\n\xff".as_slice())]).expect_err("not text");
    assert_eq!(binary.to_string(), "a.csv line 2: the file is not UTF-8");
}
