//! A registry as CSV (RFC 4180), told apart by the names in the first line: a list of devices has a
//! column `device`, a list of the keys of types has `type` and `key`.

use super::{Builder, Fault, Spelled, listing_fault};
use crate::registry::Listing;

const DEVICES: [&str; 5] = ["device", "tenant", "type", "location", "name"];
const KEYS: [&str; 7] = ["type", "key", "data_type", "unit", "min", "max", "description"];

/// One record: the line it begins in, and its fields.
type Record = (usize, Vec<String>);

pub(super) fn load(text: &str, builder: &mut Builder) -> Result<(), Fault> {
    let mut records = records(text.strip_prefix('\u{feff}').unwrap_or(text))?.into_iter();
    let Some((line, names)) = records.next() else {
        return Err(Fault::at(1, "the first line must name the columns"));
    };
    let is_devices = names.iter().any(|name| name == "device");
    let allowed: &[&str] = if is_devices { &DEVICES } else { &KEYS };
    for (place, name) in names.iter().enumerate() {
        if !allowed.contains(&name.as_str()) {
            let message = format!("unknown column {name:?}, not one of {}", allowed.join(", "));
            return Err(Fault::at(line, message));
        }
        if names[..place].contains(name) {
            return Err(Fault::at(line, format!("column {name:?} is there twice")));
        }
    }
    let required: &[&str] = if is_devices { &["device"] } else { &["type", "key"] };
    if let Some(missing) = required.iter().find(|name| !names.iter().any(|found| found == *name)) {
        let message = format!(
            "column {missing:?} is missing: a list of devices has \"device\", a list of keys \"type\" and \"key\""
        );
        return Err(Fault::at(line, message));
    }
    for (line, fields) in records {
        if fields.len() != names.len() {
            let (found, expected) = (fields.len(), names.len());
            let message = format!("{found} fields where the first line names {expected} columns");
            return Err(Fault::at(line, message));
        }
        let field = |name: &str| {
            let place = names.iter().position(|found| found == name)?;
            Some(fields[place].clone()).filter(|field| !field.is_empty())
        };
        let record = if is_devices { device(&field, builder) } else { key(&field, builder) };
        record.map_err(|message| Fault::at(line, message))?;
    }
    Ok(())
}

fn device(field: &dyn Fn(&str) -> Option<String>, builder: &mut Builder) -> Result<(), String> {
    let id = field("device").ok_or("column \"device\" is empty")?;
    let listing = Listing {
        tenant: field("tenant"),
        device: id.clone(),
        name: field("name"),
        device_type: field("type"),
        location: field("location"),
        ..Listing::default()
    };
    builder.add(listing).map_err(|error| listing_fault(&id, &error))
}

fn key(field: &dyn Fn(&str) -> Option<String>, builder: &mut Builder) -> Result<(), String> {
    let device_type = field("type").ok_or("column \"type\" is empty")?;
    let key = field("key").ok_or("column \"key\" is empty")?;
    let number = |name: &str| match field(name) {
        None => Ok(None),
        Some(text) => {
            let parsed = text.parse::<f64>();
            parsed.map(Some).map_err(|_| format!("{name} of key {key:?} is {text:?}, not a number"))
        }
    };
    let spelled = Spelled {
        data_type: field("data_type"),
        unit: field("unit"),
        description: field("description"),
        min: number("min")?,
        max: number("max")?,
    };
    let keys = builder.keys_of_type(&device_type);
    if keys.get(&key).is_some() {
        return Err(format!("key {key:?} of type {device_type:?} is there twice"));
    }
    spelled.define(&key, "data_type", keys)
}

/// All records; empty lines are passed over.
fn records(text: &str) -> Result<Vec<Record>, Fault> {
    let mut records: Vec<Record> = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let begins = line;
        let mut fields = Vec::new();
        loop {
            let (field, after, lines) = field(rest).map_err(|message| Fault::at(line, message))?;
            fields.push(field);
            line += lines;
            rest = after;
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => break,
            }
        }
        let ended = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n'));
        match ended {
            Some(after) => rest = after,
            None if rest.is_empty() => {}
            None => return Err(Fault::at(line, "text after a closing quote")),
        }
        line += 1;
        if fields.len() > 1 || !fields[0].is_empty() {
            records.push((begins, fields));
        }
    }
    Ok(records)
}

/// The next field, what follows it, and how many lines it goes over.
fn field(text: &str) -> Result<(String, &str, usize), String> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).unwrap_or(text.len());
        let (field, rest) = text.split_at(end);
        // The carriage return belongs to the end of the line.
        let field = if rest.starts_with(',') { field } else { field.trim_end_matches('\r') };
        return match field.find('"') {
            None => Ok((field.trim().to_owned(), &text[end..], 0)),
            Some(_) => Err(format!("a quote within the field {field:?}: quote all of it")),
        };
    };
    let mut field = String::new();
    loop {
        let Some(end) = rest.find('"') else {
            return Err("a quote is not closed".to_owned());
        };
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => break,
        }
    }
    let lines = field.matches('\n').count();
    Ok((field, rest, lines))
}
