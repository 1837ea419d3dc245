//! `forebay keys`: the file of API keys that fronts and storage tiers follow.
//!
//! Each change replaces the file as a whole; running tiers take it over within seconds. A secret is
//! printed once, when its key is made, and is in the file only as a hash.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Subcommand};
use forebay_access::{
    keys::{KeyRecord, KeysFile, NewKey, Owner},
    unix_now_s,
};
use forebay_model::{DeviceId, TenantId};
use forebay_ops::Duration;
use serde::Serialize;

/// Makes, rotates, revokes and lists API keys.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The file of keys, as `auth.keys` names it; `add` makes it if it is not there.
    #[arg(long, global = true, default_value = "forebay-data/keys.jsonl", value_name = "FILE")]
    file: PathBuf,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key and print it, once; an owner has at most two that are good.
    Add {
        #[command(flatten)]
        owner: OwnerArgs,
        /// Time until it is worth nothing, such as 90d [default: for ever].
        #[arg(long, value_name = "TIME")]
        expires: Option<Duration>,
    },
    /// Make a key beside the newest one, which stays good for a while; older ones are revoked.
    Rotate {
        #[command(flatten)]
        owner: OwnerArgs,
        /// Time for which the key before stays good.
        #[arg(long, default_value = "1d", value_name = "TIME")]
        grace: Duration,
        /// Time until the new key is worth nothing [default: for ever].
        #[arg(long, value_name = "TIME")]
        expires: Option<Duration>,
    },
    /// Make keys worth nothing, and end their connections.
    Revoke {
        /// Ids of keys.
        #[arg(required_unless_present_any = ["device", "reader"], value_name = "ID")]
        ids: Vec<String>,
        /// All keys of this device.
        #[arg(long, value_name = "ID", conflicts_with_all = ["ids", "reader"])]
        device: Option<DeviceName>,
        /// All keys of this reader.
        #[arg(long, value_name = "NAME", conflicts_with = "ids")]
        reader: Option<DeviceName>,
        /// Whose it is.
        #[arg(long, default_value = "default", value_name = "ID")]
        tenant: Tenant,
    },
    /// List all keys; of secrets there is nothing to show.
    List,
}

/// Whose key it is.
#[derive(Debug, Args)]
struct OwnerArgs {
    /// The device that the key writes as.
    #[arg(long, required_unless_present = "reader", value_name = "ID")]
    device: Option<DeviceName>,
    /// A name for who reads all that the tenant's devices send.
    #[arg(long, conflicts_with = "device", value_name = "NAME")]
    reader: Option<DeviceName>,
    /// Whose device or reader it is.
    #[arg(long, default_value = "default", value_name = "ID")]
    tenant: Tenant,
}

#[derive(Debug, Clone)]
struct DeviceName(DeviceId);

impl std::str::FromStr for DeviceName {
    type Err = forebay_model::Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        DeviceId::new(text).map(Self)
    }
}

#[derive(Debug, Clone)]
struct Tenant(TenantId);

impl std::str::FromStr for Tenant {
    type Err = forebay_model::Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        TenantId::new(text).map(Self)
    }
}

/// A key as it is printed once.
#[derive(Serialize)]
struct Made<'a> {
    id: &'a str,
    tenant: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reader: Option<&'a str>,
    token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_s: Option<u64>,
}

/// A key as it is listed.
#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    tenant: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reader: Option<&'a str>,
    state: &'static str,
    created_s: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_s: Option<u64>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let now_s = unix_now_s();
    if let Command::List = options.command {
        let file = KeysFile::open(&options.file)?;
        file.records().iter().for_each(|record| list(record, now_s, options.json));
        return Ok(ExitCode::SUCCESS);
    }
    let _lock = KeysFile::lock(&options.file)?;
    let mut file = KeysFile::open(&options.file)?;
    match &options.command {
        Command::List => {}
        Command::Add { owner, expires } => {
            let (tenant, who) = owner.owner();
            let expires_s = expires.map(|time| now_s + time.as_secs());
            let key = file.add(&tenant, &who, expires_s, now_s)?;
            // Kept before it is shown: a key that is shown is good.
            file.save()?;
            made(&key, &tenant, &who, expires_s, options.json)?;
        }
        Command::Rotate { owner, grace, expires } => {
            let (tenant, who) = owner.owner();
            let expires_s = expires.map(|time| now_s + time.as_secs());
            let until_s = Some(now_s + grace.as_secs());
            let (key, revoked) = file.rotate(&tenant, &who, until_s, expires_s, now_s)?;
            file.save()?;
            revoked.iter().for_each(|id| eprintln!("revoked {id}"));
            made(&key, &tenant, &who, expires_s, options.json)?;
        }
        Command::Revoke { ids, device, reader, tenant } => {
            let owner = match (device, reader) {
                (Some(device), _) => Some(Owner::Device(device.0.clone())),
                (None, reader) => reader.as_ref().map(|reader| Owner::Reader(reader.0.clone())),
            };
            let revoked = match owner {
                Some(owner) => file.revoke_all(&tenant.0, &owner, now_s)?,
                None => {
                    for id in ids {
                        file.revoke(id, now_s)?;
                    }
                    ids.clone()
                }
            };
            file.save()?;
            for id in revoked {
                if options.json {
                    println!("{}", serde_json::json!({ "revoked": id }));
                } else {
                    println!("revoked {id}");
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl OwnerArgs {
    fn owner(&self) -> (TenantId, Owner) {
        let owner = match (&self.device, &self.reader) {
            (Some(device), _) => Owner::Device(device.0.clone()),
            (None, Some(reader)) => Owner::Reader(reader.0.clone()),
            (None, None) => unreachable!("the command line demands one of both"),
        };
        (self.tenant.0.clone(), owner)
    }
}

fn made(
    key: &NewKey,
    tenant: &TenantId,
    owner: &Owner,
    expires_s: Option<u64>,
    json: bool,
) -> Result<()> {
    if !json {
        eprintln!("key {} made; this is the only time that its secret is shown:", key.id);
        println!("{}", key.expose());
        return Ok(());
    }
    let (device, reader) = match owner {
        Owner::Device(id) => (Some(id.as_str()), None),
        Owner::Reader(name) => (None, Some(name.as_str())),
    };
    let (id, tenant, token) = (key.id.as_str(), tenant.as_str(), key.expose());
    println!("{}", serde_json::to_string(&Made { id, tenant, device, reader, token, expires_s })?);
    Ok(())
}

fn list(record: &KeyRecord, now_s: u64, json: bool) {
    let state = match record {
        record if record.revoked_s.is_some() => "revoked",
        record if !record.is_live(now_s) => "expired",
        _ => "live",
    };
    let (device, reader) = (record.device.as_deref(), record.reader.as_deref());
    if json {
        let listed = Listed {
            id: &record.id,
            tenant: &record.tenant,
            device,
            reader,
            state,
            created_s: record.created_s,
            expires_s: record.expires_s,
            revoked_s: record.revoked_s,
        };
        println!("{}", serde_json::to_string(&listed).unwrap_or_default());
        return;
    }
    let owner = device.map_or_else(
        || format!("reader {}", reader.unwrap_or("?")),
        |device| format!("device {device}"),
    );
    let until = match record.expires_s {
        Some(expires_s) if state == "live" => format!(", {} left", left(expires_s - now_s)),
        _ => String::new(),
    };
    println!("{}  {}  {owner}  {state}{until}", record.id, record.tenant);
}

/// A time to come, in its largest unit.
fn left(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
