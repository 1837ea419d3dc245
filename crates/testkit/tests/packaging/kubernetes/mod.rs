//! k8s/: what kubectl makes of each overlay, and what strict schemas say of it.

mod cluster;
mod credentials;
mod network;
mod workloads;

use std::fs;

use forebay_testkit::{node, or_skip};
use serde_json::Value;

use crate::{root, run, tools, yaml};

/// Overlays that hold a whole installation.
const INSTALLATIONS: [&str; 2] = ["dev", "prod"];
/// And the one that empties the volume of a front that is no more.
const DRAIN: &str = "drain";
/// Oldest and newest Kubernetes whose schemas are asked: `ReadWriteOncePod` came to stay with 1.29.
const VERSIONS: [&str; 2] = ["1.29", "1.37"];
/// Kinds that no cluster has by itself.
const CUSTOM: [&str; 2] = ["PodMonitor", "PrometheusRule"];

/// An overlay as it would be applied.
fn rendered(overlay: &str) -> Option<String> {
    let mut kustomize = tools()?.program("kubectl");
    kustomize.arg("kustomize").arg(root().join("k8s/overlays").join(overlay));
    Some(run(&mut kustomize, "").unwrap_or_else(|said| panic!("{said}")))
}

/// Its resources.
fn resources(overlay: &str) -> Option<Vec<Value>> {
    Some(yaml(&tools()?, &rendered(overlay)?))
}

#[test]
fn every_resource_of_every_overlay_passes_the_strict_schema() {
    let Some(tools) = tools() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for overlay in [&INSTALLATIONS[..], &[DRAIN]].concat() {
        let file = folder.path().join(format!("{overlay}.yml"));
        fs::write(&file, rendered(overlay).expect("the tools are there")).expect("writes");
        for version in VERSIONS {
            let mut validate = tools.program("kubernetes-validate");
            validate.args(["--strict", "-k", version]).arg(&file);
            let said = run(&mut validate, "").unwrap_or_else(|said| panic!("{overlay}: {said}"));
            let unknown = said.lines().filter(|line| {
                line.starts_with("WARN") && !CUSTOM.iter().any(|kind| line.contains(kind))
            });
            assert_eq!(unknown.count(), 0, "{overlay}: {said}");
        }
    }
}

#[test]
fn every_custom_resource_passes_the_model_of_its_operator() {
    const VALIDATE: &str = "
        const base = process.env.MODULES
            + '/@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/';
        const { readFileSync } = await import('fs');
        let count = 0;
        for (const one of JSON.parse(readFileSync(0))) {
            const models = await import(base + one.kind + '.js');
            new models[one.kind](one).validate();
            count += 1;
        }
        console.log(count);";
    let packages = ["@kubernetes-models/prometheus-operator@6.0.0"];
    let Some(models) = or_skip(node::packages(&packages)) else { return };
    let Some(resources) = resources("prod") else { return };
    let mut custom: Vec<Value> = resources
        .into_iter()
        .filter(|one| CUSTOM.iter().any(|kind| one["kind"] == *kind))
        .collect();
    let validate = |custom: &[Value]| {
        let input = Value::from(custom).to_string();
        let mut node = models.command();
        node.args(["--input-type=module", "-e", VALIDATE]).env("MODULES", models.modules());
        run(&mut node, &input)
    };
    assert_eq!(validate(&custom).unwrap_or_else(|said| panic!("{said}")).trim(), "2");
    custom[0]["spec"]["podMetricsEndpoints"][0]["port"] = Value::from(7);
    assert!(validate(&custom).is_err(), "a planted fault passes");
}

#[test]
fn every_component_belongs_to_an_overlay() {
    let texts: String = [&INSTALLATIONS[..], &[DRAIN]]
        .concat()
        .iter()
        .map(|overlay| crate::read(&format!("k8s/overlays/{overlay}/kustomization.yml")))
        .collect();
    for component in fs::read_dir(root().join("k8s/components")).expect("components").flatten() {
        let name = component.file_name().to_string_lossy().into_owned();
        assert!(texts.contains(&format!("../../components/{name}\n")), "nobody uses {name}");
    }
}
