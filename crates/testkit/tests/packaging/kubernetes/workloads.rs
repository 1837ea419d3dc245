//! Each workload against the settings of its tier: ports, probes, times, volumes, memory.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_ops::{Shutdown, admin::Admin};
use forebay_testkit::http;
use serde_json::Value;

use super::INSTALLATIONS;
use super::cluster::{Cluster, bytes, list, selects, text};
use crate::none;

/// Runs a check on every installation and fails with all that it found.
fn check(rule: &str, check: impl Fn(&Cluster, &mut Vec<String>)) {
    let mut faults = Vec::new();
    for name in INSTALLATIONS {
        let Some(cluster) = Cluster::of(name) else { return };
        let before = faults.len();
        check(&cluster, &mut faults);
        for fault in &mut faults[before..] {
            fault.insert_str(0, &format!("{name}: "));
        }
    }
    none(rule, &faults);
}

#[test]
fn every_tier_accepts_its_configuration_and_they_fit_together() {
    check("settings", |cluster, faults| {
        let tiers = cluster.tiers();
        let names: BTreeSet<&str> = tiers.iter().map(|tier| tier.name.as_str()).collect();
        let all = ["forebay-front", "forebay-live", "forebay-middle", "forebay-storage"];
        if names != BTreeSet::from(all) {
            faults.push(format!("tiers: {names:?}"));
        }
        let middle = tiers.iter().find(|tier| tier.name == "forebay-middle").expect("a middle");
        let pods: Vec<String> = (0..middle.value["spec"]["replicas"].as_u64().expect("a number"))
            .map(|number| format!("forebay-middle-{number}"))
            .collect();
        let mut consumers = BTreeSet::new();
        for tier in &tiers {
            if tier.settings.partitions != pods {
                faults.push(format!("{} knows {:?}", tier.name, tier.settings.partitions));
            }
            if tier.name != "forebay-middle" {
                consumers.extend(tier.settings.consumers.iter().cloned());
            }
        }
        // One that nobody is would hold the ring until it is full.
        if consumers != middle.settings.consumers.iter().cloned().collect() {
            faults.push(format!("{consumers:?} but {:?} required", middle.settings.consumers));
        }
    });
}

#[test]
fn ports_are_those_that_the_tier_serves() {
    check("ports", |cluster, faults| {
        for tier in cluster.tiers() {
            let container = &tier.value["spec"]["template"]["spec"]["containers"][0];
            let mut served = BTreeSet::from([("admin".to_owned(), tier.settings.admin.port())]);
            if let Some(open) = tier.settings.open {
                let name = if tier.name == "forebay-front" { "devices" } else { "http" };
                served.insert((name.to_owned(), open.port()));
                if !open.ip().is_unspecified() {
                    faults.push(format!("{} serves itself only", tier.name));
                }
            }
            if !tier.settings.admin.ip().is_unspecified() {
                faults.push(format!("{}: probes cannot reach it", tier.name));
            }
            for (name, link) in &tier.settings.links {
                served.insert(((*name).to_owned(), crate::settings::host_and_port(link).1));
            }
            let ports = list(&container["ports"]).iter().map(|port| {
                let number = port["containerPort"].as_u64().expect("a port");
                (text(&port["name"]), u16::try_from(number).expect("a port"))
            });
            let ports: BTreeSet<(String, u16)> = ports.collect();
            if ports != served {
                faults.push(format!("{} has {ports:?} and serves {served:?}", tier.name));
            }
        }
    });
}

#[test]
fn probes_ask_routes_that_are_served() {
    let admin = Admin::new(&Default::default(), &Shutdown::new());
    let server = admin.serve("127.0.0.1:0".parse().expect("an address")).expect("serves");
    check("probes", |cluster, faults| {
        for tier in cluster.tiers() {
            let container = &tier.value["spec"]["template"]["spec"]["containers"][0];
            let wanted = [
                ("startupProbe", "/healthz"),
                ("livenessProbe", "/healthz"),
                ("readinessProbe", "/readyz"),
            ];
            for (probe, path) in wanted {
                let get = &container[probe]["httpGet"];
                if get["path"] != path || get["port"] != "admin" {
                    faults.push(format!("{}: {probe} asks {get}", tier.name));
                }
                let answer = http::get(server.address(), path, Duration::from_secs(5));
                if let Err(error) = answer.and_then(http::Answer::good) {
                    faults.push(format!("{path} is not served: {error:#}"));
                }
            }
        }
    });
}

#[test]
fn a_pod_has_longer_to_end_than_its_tier_takes() {
    check("grace periods", |cluster, faults| {
        for tier in cluster.tiers() {
            let grace = &tier.value["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
            let grace = Duration::from_secs(grace.as_u64().expect("seconds"));
            let end = tier.settings.end;
            if grace < end + Duration::from_secs(5) {
                faults.push(format!("{}: killed after {grace:?}, ends in {end:?}", tier.name));
            }
        }
    });
}

#[test]
fn what_must_last_lies_on_a_volume_that_lasts_and_fits() {
    check("volumes", |cluster, faults| {
        for tier in cluster.tiers() {
            let (name, spec) = (&tier.name, &tier.value["spec"]);
            let container = &spec["template"]["spec"]["containers"][0];
            let mounts = list(&container["volumeMounts"]);
            for path in &tier.settings.writes {
                let mount = mounts.iter().find(|mount| path.starts_with(text(&mount["mountPath"])));
                if mount.is_none_or(|mount| mount["name"] != "data") {
                    faults.push(format!("{name} writes {} to no volume", path.display()));
                }
            }
            let claim = &spec["volumeClaimTemplates"][0];
            if tier.value["kind"] == "Deployment" {
                // Only what can be made again lies on an empty folder.
                if !tier.settings.consumers.is_empty() || tier.settings.ring_bytes > 0 {
                    faults.push(format!("{name} has no volume that lasts"));
                }
                continue;
            }
            if claim["metadata"]["name"] != "data" {
                faults.push(format!("{name} has no volume that lasts"));
            }
            let kept = &spec["persistentVolumeClaimRetentionPolicy"];
            if kept["whenScaled"] != "Retain" || kept["whenDeleted"] != "Retain" {
                faults.push(format!("{name}: its volumes are deleted"));
            }
            let ring = tier.settings.ring_bytes;
            if ring * 5 / 4 > bytes(&claim["spec"]["resources"]["requests"]["storage"]) {
                faults.push(format!("{name}: a ring of {ring} bytes does not fit its volume"));
            }
            if ring * 4 > bytes(&container["resources"]["limits"]["memory"]) {
                faults.push(format!("{name}: a ring of {ring} bytes is above a quarter of memory"));
            }
        }
    });
}

#[test]
fn every_pod_is_confined_as_the_restricted_standard_wants() {
    let mut faults = Vec::new();
    for overlay in [&INSTALLATIONS[..], &[super::DRAIN]].concat() {
        let Some(cluster) = Cluster::of(overlay) else { return };
        for (name, pod) in cluster.pods() {
            let (spec, fault) = (&pod["spec"], format!("{overlay}: {name}"));
            let context = &spec["securityContext"];
            if context["runAsNonRoot"] != true
                || context["seccompProfile"]["type"] != "RuntimeDefault"
                || spec["automountServiceAccountToken"] != false
                // Variables named FOREBAY_... after services are none of ours.
                || spec["enableServiceLinks"] != false
            {
                faults.push(format!("{fault}: its pod"));
            }
            for container in list(&spec["containers"]) {
                let context = &container["securityContext"];
                if context["allowPrivilegeEscalation"] != false
                    || context["capabilities"]["drop"][0] != "ALL"
                    || (name.starts_with("forebay-") && context["readOnlyRootFilesystem"] != true)
                    || !container["resources"]["limits"]["memory"].is_string()
                {
                    faults.push(format!("{fault}: {}", container["name"]));
                }
            }
        }
    }
    none("security contexts", &faults);
}

#[test]
fn every_tier_may_lose_one_pod_at_a_time_and_spreads_over_hosts_and_zones() {
    check("disruption", |cluster, faults| {
        for tier in cluster.tiers() {
            let labels = &tier.value["spec"]["template"]["metadata"]["labels"];
            if !selects(&tier.value["spec"]["selector"]["matchLabels"], labels) {
                faults.push(format!("{} does not select its own pods", tier.name));
            }
            let budget = cluster
                .all("PodDisruptionBudget")
                .find(|budget| selects(&budget["spec"]["selector"]["matchLabels"], labels));
            if budget.is_none_or(|budget| budget["spec"]["maxUnavailable"] != 1) {
                faults.push(format!("{} has no budget of one", tier.name));
            }
            let spread = &tier.value["spec"]["template"]["spec"]["topologySpreadConstraints"];
            let over: Vec<&Value> = list(spread).iter().map(|one| &one["topologyKey"]).collect();
            if over != ["kubernetes.io/hostname", "topology.kubernetes.io/zone"] {
                faults.push(format!("{} spreads over {over:?}", tier.name));
            }
        }
    });
}

#[test]
fn nothing_but_the_front_scales_by_itself() {
    check("autoscaling", |cluster, faults| {
        for scaler in cluster.all("HorizontalPodAutoscaler") {
            let target = text(&scaler["spec"]["scaleTargetRef"]["name"]);
            if target != "forebay-front" {
                faults.push(format!("{target} is scaled"));
            }
            if cluster
                .one("StatefulSet", &target)
                .is_none_or(|one| !one["spec"]["replicas"].is_null())
            {
                faults.push(format!("{target} has a number of its own, or is not there"));
            }
        }
    });
}

#[test]
fn the_drain_job_opens_the_rings_of_a_front_and_sends_to_their_middles() {
    let (Some(prod), Some(drain)) = (Cluster::of("prod"), Cluster::of(super::DRAIN)) else {
        return;
    };
    let tiers = prod.tiers();
    let front = tiers.iter().find(|tier| tier.name == "forebay-front").expect("a front");
    let pod = &drain.all("Job").next().expect("a job")["spec"]["template"]["spec"];
    let claim = text(&pod["volumes"][0]["persistentVolumeClaim"]["claimName"]);
    assert!(claim.starts_with("data-forebay-front-"), "{claim}");
    let sent: BTreeSet<(String, String)> = list(&pod["containers"])
        .iter()
        .map(|container| {
            let args: Vec<String> = list(&container["args"]).iter().map(text).collect();
            let [queue, deed, ring, to, endpoint, flag, partitions] = &args[..] else {
                panic!("{args:?}")
            };
            assert_eq!([queue.as_str(), deed, to, flag], ["queue", "drain", "--to", "--partition"]);
            assert_eq!(*partitions, front.settings.partitions.join(","));
            assert_eq!(&container["image"], front_image(front.value));
            (ring.clone(), endpoint.clone())
        })
        .collect();
    let rings = front.settings.partitions.iter().zip(&front.settings.reaches);
    let dir = front.settings.writes[0].display();
    let wanted: BTreeSet<(String, String)> =
        rings.map(|(name, endpoint)| (format!("{dir}/uplink-{name}"), endpoint.clone())).collect();
    assert_eq!(sent, wanted);
}

fn front_image(front: &Value) -> &Value {
    &front["spec"]["template"]["spec"]["containers"][0]["image"]
}
