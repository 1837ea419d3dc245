//! The device registry as it is now, for whoever describes rows and events by it.
//!
//! Not here: what a registry is (`forebay_model::registry`).

use std::{
    borrow::Cow,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use forebay_model::registry::{Device, LoadError, Registry};
use forebay_ops::{
    Metrics,
    reload::{ReloadError, Watched},
};
use forebay_wire::live::{LastValue, LiveReading};

use crate::{config, tier::StartError};

/// The registry in force; cheap to clone, all clones are one. Empty until one is set.
#[derive(Debug, Clone, Default)]
pub struct Current(Arc<RwLock<Arc<Registry>>>);

impl Current {
    /// The registry in force, which stays as it is while it is held.
    #[must_use]
    pub fn get(&self) -> Arc<Registry> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another registry in force: batches and events that begin from now on are described by
    /// it.
    pub fn set(&self, registry: Arc<Registry>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = registry;
    }
}

/// What keeps the registry in force up to date while it is held.
pub(crate) enum Follows {
    /// Files.
    Files { _watched: Watched<Registry> },
    /// A table.
    #[cfg(feature = "postgres")]
    Table { _follower: crate::postgres::RegistryFollower },
}

/// Reads the registry into `current`, and follows it for as long as what is returned is held; none
/// if there is no registry.
///
/// # Errors
/// Files cannot be read, or hold no registry; a table cannot be followed. A later fault keeps the
/// version before it.
pub(crate) fn follow(
    settings: &config::Registry,
    current: &Current,
    metrics: &Metrics,
) -> Result<Option<Follows>, StartError> {
    #[cfg(feature = "postgres")]
    if settings.table.enabled {
        let follower = crate::postgres::RegistryFollower::start(&settings.table, current, metrics)?;
        return Ok(Some(Follows::Table { _follower: follower }));
    }
    if settings.files.is_empty() {
        return Ok(None);
    }
    let watched = follow_files(&settings.files, current, metrics)?;
    Ok(Some(Follows::Files { _watched: watched }))
}

/// Reads the registry from files into `current`, and follows them for as long as what is returned
/// is held.
///
/// # Errors
/// The files cannot be read, or hold no registry. A later fault keeps the version before it.
pub fn follow_files(
    files: &[PathBuf],
    current: &Current,
    metrics: &Metrics,
) -> Result<Watched<Registry>, ReloadError> {
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let parse = move |contents: &[Vec<u8>]| -> Result<Registry, LoadError> {
        Registry::load(names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)))
    };
    let watched = Watched::open("storage_registry", files.to_vec(), metrics, parse)?;
    let devices = metrics
        .gauge("forebay_storage_registry_devices", "Devices that the device registry lists.")?;
    let target = current.clone();
    let put = move |registry: &Arc<Registry>| {
        devices.set(i64::try_from(registry.len()).unwrap_or(i64::MAX));
        tracing::info!(devices = registry.len(), "a device registry is in force");
        target.set(registry.clone());
    };
    put(&watched.get());
    watched.on_change(put);
    Ok(watched)
}

/// What a registry says of one device: `None` where there is no registry.
pub(crate) type Listed = Option<Option<Arc<Device>>>;

/// Looks a device up.
pub(crate) fn listed(registry: &Registry, tenant: &str, device: &str) -> Listed {
    (!registry.is_empty()).then(|| registry.get(tenant, device).cloned())
}

/// Adds to a reading what the registry says of its key.
pub(crate) fn describe_reading<'a>(reading: &mut LiveReading<'a>, device: &'a Device) {
    let Some(definition) = device.keys.get(&reading.key) else { return };
    if reading.unit.is_none() {
        reading.unit = definition.unit.as_deref().map(Cow::Borrowed);
    }
    reading.suspect = definition.check(&reading.value).is_err();
}

/// Adds to last values what the registry says of their devices and keys.
pub(crate) fn describe_last(values: &mut [LastValue<'static>], registry: &Registry) {
    if registry.is_empty() {
        return;
    }
    let owned = |text: Option<&str>| text.map(|text| Cow::Owned(text.to_owned()));
    for last in values {
        let device = registry.get(&last.tenant, &last.device);
        last.known = Some(device.is_some());
        let Some(device) = device else { continue };
        last.name = owned(device.name.as_deref());
        last.device_type = owned(device.device_type.as_deref());
        last.location = owned(device.location.as_deref());
        if let Some(definition) = device.keys.get(&last.reading.key) {
            if last.reading.unit.is_none() {
                last.reading.unit = owned(definition.unit.as_deref());
            }
            last.reading.suspect = definition.check(&last.reading.value).is_err();
        }
    }
}
