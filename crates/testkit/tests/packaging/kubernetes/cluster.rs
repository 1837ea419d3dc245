//! An overlay as a cluster would see it: workloads with their settings, services, policies.

use serde_json::Value;

use super::resources;
use crate::settings::{self, Settings};

/// All of one overlay.
pub(crate) struct Cluster {
    pub(crate) name: &'static str,
    pub(crate) resources: Vec<Value>,
}

/// A Deployment or a StatefulSet that runs a tier.
pub(crate) struct Workload<'c> {
    pub(crate) name: String,
    pub(crate) value: &'c Value,
    pub(crate) settings: Settings,
}

impl Cluster {
    /// The overlay of this name; `None` if the tools cannot be had.
    pub(crate) fn of(name: &'static str) -> Option<Cluster> {
        Some(Cluster { name, resources: resources(name)? })
    }

    /// All resources of a kind.
    pub(crate) fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.resources.iter().filter(move |one| one["kind"] == kind)
    }

    /// The one of this kind and name.
    pub(crate) fn one(&self, kind: &str, name: &str) -> Option<&Value> {
        self.all(kind).find(|one| one["metadata"]["name"] == name)
    }

    /// Everything that makes pods: name and pod template.
    pub(crate) fn pods(&self) -> Vec<(String, &Value)> {
        let kinds = ["StatefulSet", "Deployment", "Job"];
        let found = kinds.into_iter().flat_map(|kind| self.all(kind));
        found.map(|one| (text(&one["metadata"]["name"]), &one["spec"]["template"])).collect()
    }

    /// The tiers, with the settings that their first pod would have.
    pub(crate) fn tiers(&self) -> Vec<Workload<'_>> {
        let found = ["StatefulSet", "Deployment"].into_iter().flat_map(|kind| self.all(kind));
        let tiers = found.filter(|one| text(&one["metadata"]["name"]).starts_with("forebay-"));
        tiers.map(|value| self.tier(value)).collect()
    }

    fn tier<'c>(&'c self, value: &'c Value) -> Workload<'c> {
        let name = text(&value["metadata"]["name"]);
        let pod = &value["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let args: Vec<String> = list(&container["args"]).iter().map(text).collect();
        let [tier, flag, path] = &args[..] else { panic!("{name}: {args:?}") };
        assert_eq!(flag, "--config");
        let file = path.strip_prefix("/etc/forebay/").expect("where the configuration is mounted");
        let volume = list(&pod["volumes"]).iter().find(|volume| volume["name"] == "config");
        let map = text(&volume.expect("a configuration")["configMap"]["name"]);
        let map = self.one("ConfigMap", &map).unwrap_or_else(|| panic!("{name}: no {map}"));
        let toml = text(&map["data"][file]);
        let variables = variables(container, &format!("{name}-0"));
        let settings = settings::load(tier, Some((path.as_str(), &toml)), &variables);
        let settings = settings.unwrap_or_else(|faults| panic!("{}, {name}: {faults}", self.name));
        Workload { name, value, settings }
    }
}

/// The variables of a container of this pod, as the kubelet would fill them in.
fn variables(container: &Value, pod: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for variable in list(&container["env"]) {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("metadata.name") => pod.to_owned(),
            Some("status.podIP") => "10.1.2.3".to_owned(),
            Some(other) => panic!("{pod}: {other}"),
            None if variable["valueFrom"].is_object() => "secret".to_owned(),
            None => found.iter().fold(text(&variable["value"]), |text, (name, value)| {
                text.replace(&format!("$({name})"), value)
            }),
        };
        found.push((text(&variable["name"]), value));
    }
    found
}

/// A text that must be there.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// A list, or none.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Whether a selector's `matchLabels` select these labels.
pub(crate) fn selects(match_labels: &Value, labels: &Value) -> bool {
    match_labels.as_object().into_iter().flatten().all(|(key, value)| labels[key] == *value)
}

/// `512Mi` and the like, in bytes.
pub(crate) fn bytes(quantity: &Value) -> u64 {
    let quantity = text(quantity);
    let digits = quantity.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &quantity[digits.len()..] {
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => panic!("no unit: {other}"),
    };
    digits.parse::<u64>().expect("a number") * unit
}
