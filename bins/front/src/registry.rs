//! Checking readings against the device registry at the edge, where the device can still be told.
//!
//! Not here: what a registry is (`forebay_model::registry`), and how a rejection is sent.

use std::{path::PathBuf, sync::Arc};

use forebay_model::{
    Body,
    registry::{Device, LoadError, Registry},
};
use forebay_ops::{Faults, Metrics, MetricsError, Validate, reload::Watched};
use prometheus::{IntCounter, IntCounterVec};
use serde::{Deserialize, Serialize};

use crate::tenancy::Identity;

/// The device registry, and what is done about readings that are not as it says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySettings {
    /// Its files, TOML or CSV by the end of their names; together they are one registry. Read again
    /// when they change.
    pub files: Vec<PathBuf>,
    /// `off`, `warn` (taken, counted, marked in storage) or `enforce` (rejected).
    pub validation: Validation,
}

/// What is done about a reading of another type than the registry says, or out of its bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// Nothing is checked.
    #[default]
    Off,
    /// It is taken and counted; storage marks the row `suspect`.
    Warn,
    /// Its message is rejected for good, with code and reason.
    Enforce,
}

impl Validate for RegistrySettings {
    fn validate(&self, faults: &mut Faults) {
        let named = self.validation == Validation::Off || !self.files.is_empty();
        faults.check(named, "files", "validation needs a registry");
    }
}

/// The registry as a front uses it.
pub(crate) struct Edge {
    registry: Watched<Registry>,
    enforce: bool,
    suspects: IntCounterVec,
    unknown: IntCounter,
}

/// What a session remembers of its device, until the registry changes.
#[derive(Default)]
pub(crate) struct Listed {
    generation: u64,
    device: Option<Arc<Device>>,
}

/// Why a message is rejected: a code and a sentence.
pub(crate) type Rejection = (&'static str, String);

impl Edge {
    /// The registry of these settings; `None` if nothing is to be checked.
    ///
    /// # Errors
    /// It cannot be read: better not to start than to let everything pass.
    pub(crate) fn open(
        settings: &RegistrySettings,
        metrics: &Metrics,
    ) -> Result<Option<Self>, forebay_ops::reload::ReloadError> {
        if settings.validation == Validation::Off {
            return Ok(None);
        }
        let names: Vec<String> =
            settings.files.iter().map(|path| path.display().to_string()).collect();
        let parse = move |contents: &[Vec<u8>]| -> Result<Registry, LoadError> {
            Registry::load(names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)))
        };
        let registry = Watched::open("front_registry", settings.files.clone(), metrics, parse)?;
        let (suspects, unknown) = counters(metrics)?;
        let enforce = settings.validation == Validation::Enforce;
        tracing::info!(devices = registry.get().len(), enforce, "checking readings by a registry");
        Ok(Some(Self { registry, enforce, suspects, unknown }))
    }

    /// Checks a message of a device; `listed` remembers what is known of it.
    ///
    /// # Errors
    /// [`Rejection`]: the message is to be rejected. Never in `warn`.
    pub(crate) fn check(
        &self,
        identity: &Identity,
        listed: &mut Listed,
        body: &Body<'_>,
    ) -> Result<(), Rejection> {
        // Generations begin at 1: the first message looks the device up.
        let generation = self.registry.generation();
        if listed.generation != generation {
            let registry = self.registry.get();
            let device = registry.get(identity.tenant.as_str(), identity.device.as_str());
            *listed = Listed { generation, device: device.cloned() };
        }
        let Some(device) = &listed.device else {
            self.unknown.inc();
            return Ok(());
        };
        let Err((place, key, violation)) = device.check(body) else { return Ok(()) };
        if !self.enforce {
            self.suspects.with_label_values(&[violation.code()]).inc();
            return Ok(());
        }
        Err((violation.code(), format!("reading {place}, key {key:?}: {violation}")))
    }
}

fn counters(metrics: &Metrics) -> Result<(IntCounterVec, IntCounter), MetricsError> {
    let suspects = metrics.counters(
        "forebay_front_suspects_total",
        "Messages taken although the registry says otherwise of a reading, by code.",
        &["code"],
    )?;
    let unknown = metrics.counter(
        "forebay_front_unknown_devices_total",
        "Messages taken of devices that the registry does not list.",
    )?;
    Ok((suspects, unknown))
}
