//! The file of keys: what is added is good, what is rotated or revoked ends, and a tier that reads
//! meanwhile sees a whole file.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use forebay_access::{
    Auth, Denied, Gate,
    keys::{KeysError, KeysFile, Owner},
};
use forebay_model::{DeviceId, TenantId};
use forebay_ops::Metrics;

fn tenant() -> TenantId {
    TenantId::new("acme").expect("valid")
}

fn device(name: &str) -> Owner {
    Owner::Device(DeviceId::new(name).expect("valid"))
}

fn gate(path: &Path) -> Gate {
    let auth = Auth { keys: Some(path.to_owned()), ..Auth::default() };
    let metrics = Metrics::new(&prometheus::Registry::new());
    Gate::open(&auth, "test", &metrics).expect("a gate")
}

/// Adds a key and saves; returns `id.secret`.
fn add(path: &Path, owner: &Owner, expires_s: Option<u64>) -> String {
    let mut file = KeysFile::open(path).expect("a file");
    let key = file.add(&tenant(), owner, expires_s, 100).expect("a key");
    file.save().expect("saved");
    key.expose().to_owned()
}

#[test]
fn keys_are_taken_over_and_revoked_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.jsonl");
    let first = add(&path, &device("pump"), None);
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let gate = gate(&path);
    let admission = gate.check(&first, 200).expect("good");
    assert!(gate.holds(&admission.standing, 200));
    let generation = gate.generation();

    let second = add(&path, &device("pump"), None);
    gate.look();
    assert!(gate.check(&first, 200).is_ok() && gate.check(&second, 200).is_ok());
    assert_ne!(gate.generation(), generation);

    let mut file = KeysFile::open(&path).expect("a file");
    let id = first.split_once('.').expect("two parts").0;
    file.revoke(id, 300).expect("revoked");
    assert!(matches!(file.revoke(id, 300), Err(KeysError::NoSuchKey { .. })));
    file.save().expect("saved");
    gate.look();
    assert_eq!(gate.check(&first, 300), Err(Denied::Revoked));
    assert!(!gate.holds(&admission.standing, 300));
    assert!(gate.check(&second, 300).is_ok());
    // What is no file of keys changes nothing.
    std::fs::write(&path, "{").expect("written");
    gate.look();
    assert!(gate.check(&second, 300).is_ok());
}

#[test]
fn a_device_has_two_live_keys_and_rotation_keeps_the_newest_for_a_while() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.jsonl");
    let owner = device("pump");
    let first = add(&path, &owner, None);
    let second = add(&path, &owner, None);
    let mut file = KeysFile::open(&path).expect("a file");
    let third = file.add(&tenant(), &owner, None, 100);
    assert!(matches!(third, Err(KeysError::TooMany { .. })), "{third:?}");
    // Others are not counted with it.
    file.add(&TenantId::single(), &owner, None, 100).expect("of another tenant");
    file.add(&tenant(), &device("fan"), None, 100).expect("another device");
    let reader = Owner::Reader(DeviceId::new("pump").expect("valid"));
    let reads = file.add(&tenant(), &reader, None, 100).expect("a reader");

    let (third, revoked) = file.rotate(&tenant(), &owner, Some(160), None, 100).expect("rotated");
    assert_eq!(revoked, [first.split_once('.').expect("two parts").0]);
    file.save().expect("saved");
    let gate = gate(&path);
    assert_eq!(gate.check(&first, 101), Err(Denied::Revoked));
    assert!(gate.check(&second, 159).is_ok());
    assert_eq!(gate.check(&second, 160), Err(Denied::Expired));
    assert!(gate.check(third.expose(), 160).is_ok());
    let grant = gate.check(reads.expose(), 160).expect("good").grant;
    assert!(grant.read && grant.device.is_none());

    let mut file = KeysFile::open(&path).expect("a file");
    assert_eq!(file.revoke_all(&tenant(), &owner, 120).expect("some").len(), 2);
    let none = file.rotate(&tenant(), &owner, None, None, 120);
    assert!(matches!(none, Err(KeysError::NoSuchKey { .. })), "{none:?}");
}

#[test]
fn a_key_ends_when_its_time_is_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.jsonl");
    let key = add(&path, &device("pump"), Some(500));
    let gate = gate(&path);
    let admission = gate.check(&key, 499).expect("good");
    assert_eq!(admission.standing.expires_s, Some(500));
    assert!(gate.holds(&admission.standing, 499) && !gate.holds(&admission.standing, 500));
    assert_eq!(gate.check(&key, 500), Err(Denied::Expired));
}

#[test]
fn without_a_source_nothing_is_taken() {
    let gate = Gate::default();
    assert_eq!(gate.check("a.b", 1), Err(Denied::NotTaken));
    assert_eq!(gate.check("a.b.c", 1), Err(Denied::NotTaken));
    assert_eq!(gate.check("a", 1), Err(Denied::Malformed));
    assert_eq!(gate.check(&"a".repeat(5000), 1), Err(Denied::Malformed));
}
