//! docker-compose.yml: right for compose itself, and for the tiers that it starts.

use std::collections::BTreeSet;

use forebay_testkit::{debian, or_skip};
use serde_json::Value;

use crate::settings::{self, Settings, host_and_port};
use crate::{none, root, run, yaml};

const FILE: &str = "docker-compose.yml";

/// The file as compose itself understands it, all profiles on.
fn services() -> Option<Value> {
    let compose = or_skip(debian::package_of_release("trixie", "docker-compose"))?;
    let plugin = compose.root().join("usr/libexec/docker/cli-plugins/docker-compose");
    let mut config = std::process::Command::new(plugin);
    config.args(["--profile", "*", "-f", FILE, "config"]).current_dir(root());
    let text = run(&mut config, "").unwrap_or_else(|said| panic!("{said}"));
    Some(yaml(&crate::tools()?, &text).remove(0))
}

/// The services that run a tier: name, service, settings.
fn tiers(compose: &Value) -> Vec<(String, Value, Settings)> {
    let mut found = Vec::new();
    for (name, service) in compose["services"].as_object().expect("services") {
        let ours = service["image"] == "forebay:latest";
        let tier = service["command"][0].as_str().unwrap_or_default();
        if !ours || !["front", "middle", "storage"].contains(&tier) {
            continue;
        }
        let variables = service["environment"].as_object().expect("an environment");
        let variables: Vec<_> = variables
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().expect("a text").to_owned()))
            .collect();
        let settings = settings::load(tier, None, &variables);
        let settings = settings.unwrap_or_else(|faults| panic!("{name}: {faults}"));
        found.push((name.clone(), service.clone(), settings));
    }
    found
}

#[test]
fn compose_and_every_tier_accept_the_file() {
    let Some(compose) = services() else { return };
    let names: Vec<String> = tiers(&compose).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["front", "middle", "storage"]);
}

#[test]
fn what_a_tier_reaches_is_served_by_the_service_of_that_name() {
    let Some(compose) = services() else { return };
    let tiers = tiers(&compose);
    let mut served = BTreeSet::new();
    for (name, _, settings) in &tiers {
        // A name of its own as the address to listen on is the container's address.
        for (_, link) in &settings.links {
            served.insert(link.clone());
        }
        assert!(settings.admin.ip().is_unspecified(), "{name}: admin is for itself only");
        served.insert(format!("tcp://{name}:{}", settings.admin.port()));
    }
    let mut faults = Vec::new();
    for (name, _, settings) in &tiers {
        for endpoint in settings.reaches.iter().filter(|endpoint| !served.contains(*endpoint)) {
            faults.push(format!("{name} reaches for {endpoint}, which nobody serves"));
        }
        for (_, link) in &settings.links {
            if host_and_port(link).0 != name {
                faults.push(format!("{name} listens on {link}"));
            }
        }
    }
    none(FILE, &faults);
}

#[test]
fn the_middle_requires_exactly_the_consumers_that_the_storage_tier_has() {
    let Some(compose) = services() else { return };
    let of = |wanted: &str| -> BTreeSet<String> {
        let tiers = tiers(&compose).into_iter();
        tiers.filter(|(name, ..)| name == wanted).flat_map(|(.., one)| one.consumers).collect()
    };
    let required = of("middle");
    assert!(required.len() >= 3, "{required:?}");
    assert_eq!(required, of("storage"));
}

#[test]
fn what_a_tier_writes_lies_on_a_named_volume_of_its_own() {
    let Some(compose) = services() else { return };
    let mut faults = Vec::new();
    let mut taken = BTreeSet::new();
    for (name, service, settings) in tiers(&compose) {
        let volumes: Vec<&Value> = service["volumes"].as_array().into_iter().flatten().collect();
        for path in &settings.writes {
            let on = volumes.iter().find(|volume| {
                path.starts_with(volume["target"].as_str().expect("a target"))
                    && volume["type"] == "volume"
            });
            if on.is_none() {
                faults.push(format!("{name} writes {} to no volume", path.display()));
            }
        }
        for volume in volumes {
            let source = volume["source"].as_str().expect("a source").to_owned();
            if compose["volumes"][&source].is_null() || !taken.insert(source.clone()) {
                faults.push(format!("{name}: volume {source} is not declared or is shared"));
            }
        }
        let health = [
            "CMD",
            "/forebay",
            "health",
            "--tier",
            service["command"][0].as_str().expect("a tier"),
        ];
        if service["healthcheck"]["test"] != serde_json::json!(health) {
            faults.push(format!("{name} asks for the health of something else"));
        }
        if service["read_only"] != true || service["cap_drop"][0] != "ALL" {
            faults.push(format!("{name} can write its root or has capabilities"));
        }
    }
    none(FILE, &faults);
}

#[test]
fn a_tier_has_longer_to_end_than_it_takes() {
    let Some(compose) = services() else { return };
    let mut faults = Vec::new();
    for (name, service, settings) in tiers(&compose) {
        let grace = service["stop_grace_period"].as_str().expect("a grace period");
        let grace: forebay_ops::Duration = grace.parse().expect("a time");
        if grace.get() < settings.end + std::time::Duration::from_secs(5) {
            faults.push(format!("{name}: killed after {grace}, ends in {:?}", settings.end));
        }
    }
    none(FILE, &faults);
}

#[test]
fn the_store_is_of_the_release_that_the_tests_run() {
    let Some(compose) = services() else { return };
    let image = compose["services"]["clickhouse"]["image"].as_str().expect("an image");
    let (_, release) = image.rsplit_once(':').expect("a tag");
    let tested = forebay_testkit::clickhouse::RELEASE;
    assert!(tested.starts_with(&format!("{release}.")), "{image}, and tests run {tested}");
    let text = crate::read("k8s/components/clickhouse/clickhouse.yml");
    assert!(text.contains(&format!("image: {image}")), "Kubernetes has another than compose");
}

#[test]
fn ports_are_published_on_loopback_only_and_mounted_files_exist() {
    let Some(compose) = services() else { return };
    let mut faults = Vec::new();
    for (name, service) in compose["services"].as_object().expect("services") {
        for port in service["ports"].as_array().into_iter().flatten() {
            if port["host_ip"] != "127.0.0.1" {
                faults.push(format!("{name} publishes {port}"));
            }
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume["source"].as_str().expect("a source");
            if volume["type"] == "bind"
                && (volume["read_only"] != true || !std::path::Path::new(source).exists())
            {
                faults.push(format!("{name} mounts {source}"));
            }
        }
    }
    none(FILE, &faults);
}

#[test]
fn prometheus_scrapes_every_tier_where_it_answers() {
    let (Some(compose), Some(tools)) = (services(), crate::tools()) else { return };
    let text = crate::read("k8s/components/monitoring/prometheus.yml");
    let config = yaml(&tools, &text).remove(0);
    let scraped: BTreeSet<(String, u64)> = config["scrape_configs"][0]["dns_sd_configs"]
        .as_array()
        .expect("names")
        .iter()
        .map(|one| {
            let name = one["names"][0].as_str().expect("a name").to_owned();
            (name, one["port"].as_u64().expect("a port"))
        })
        .collect();
    let served = tiers(&compose);
    let served =
        served.iter().map(|(name, _, settings)| (name.clone(), settings.admin.port().into()));
    assert_eq!(scraped, served.collect());
}
