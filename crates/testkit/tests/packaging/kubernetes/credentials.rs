//! What is for use lets nobody in without a credential, and has the file of keys where it looks.

use super::cluster::{Cluster, list, text};
use crate::none;

#[test]
fn production_asks_everybody_for_a_key_that_a_secret_brings() {
    let Some(prod) = Cluster::of("prod") else { return };
    let mut faults = Vec::new();
    let mut asked = 0;
    for tier in prod.tiers() {
        if tier.settings.open.is_none() {
            continue;
        }
        asked += 1;
        if tier.settings.anonymous {
            faults.push(format!("{} lets everybody in", tier.name));
        }
        let Some(keys) = &tier.settings.keys else {
            faults.push(format!("{} has no file of keys: nobody comes in", tier.name));
            continue;
        };
        let pod = &tier.value["spec"]["template"]["spec"];
        let mounts = list(&pod["containers"][0]["volumeMounts"]);
        let mount = mounts.iter().find(|mount| keys.starts_with(text(&mount["mountPath"])));
        let volume = mount.and_then(|mount| {
            list(&pod["volumes"]).iter().find(|volume| volume["name"] == mount["name"])
        });
        // Neither optional nor mounted as a file: the pod waits for it, and follows its changes.
        let waits = volume.is_some_and(|volume| {
            volume["secret"]["secretName"] == "forebay-keys" && volume["secret"]["optional"] != true
        });
        if !waits || mount.is_none_or(|mount| !mount["subPath"].is_null()) {
            faults.push(format!("{} looks for {} where no Secret is", tier.name, keys.display()));
        }
    }
    assert_eq!(asked, 3, "front, storage and live");
    none("k8s/overlays/prod", &faults);
}
