//! A registry as TOML: `[types.NAME.keys.KEY]` and `[[devices]]`.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{Builder, Fault, Spelled, line_of, listing_fault};
use crate::registry::{Keys, Listing};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    types: BTreeMap<String, Type>,
    #[serde(default)]
    devices: Vec<Spanned<Device>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Type {
    /// For people; nothing reads it.
    #[serde(rename = "description")]
    _description: Option<String>,
    #[serde(default)]
    keys: BTreeMap<String, Spanned<Key>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    id: String,
    tenant: Option<String>,
    #[serde(rename = "type")]
    device_type: Option<String>,
    location: Option<String>,
    name: Option<String>,
    #[serde(default)]
    keys: BTreeMap<String, Spanned<Key>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    #[serde(rename = "type")]
    data_type: Option<String>,
    unit: Option<String>,
    description: Option<String>,
    min: Option<f64>,
    max: Option<f64>,
}

pub(super) fn load(text: &str, builder: &mut Builder) -> Result<(), Fault> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text.as_bytes(), span.start));
        // The line itself shows the key that is meant.
        let shown = text.lines().nth(line - 1).unwrap_or_default().trim();
        Fault::at(line, format!("{} in `{shown}`", error.message()))
    })?;
    let line = |at: usize| line_of(text.as_bytes(), at);
    for (name, found) in file.types {
        define(found.keys, builder.keys_of_type(&name), &line)?;
    }
    for device in file.devices {
        let at = line(device.span().start);
        let device = device.into_inner();
        let mut keys = Keys::default();
        define(device.keys, &mut keys, &line)?;
        let id = device.id.clone();
        let listing = Listing {
            tenant: device.tenant,
            device: device.id,
            name: device.name,
            device_type: device.device_type,
            location: device.location,
            keys,
        };
        builder.add(listing).map_err(|error| Fault::at(at, listing_fault(&id, &error)))?;
    }
    Ok(())
}

fn define(
    found: BTreeMap<String, Spanned<Key>>,
    keys: &mut Keys,
    line: &dyn Fn(usize) -> usize,
) -> Result<(), Fault> {
    for (name, key) in found {
        let at = line(key.span().start);
        let Key { data_type, unit, description, min, max } = key.into_inner();
        let spelled = Spelled { data_type, unit, description, min, max };
        spelled.define(&name, "type", keys).map_err(|message| Fault::at(at, message))?;
    }
    Ok(())
}
