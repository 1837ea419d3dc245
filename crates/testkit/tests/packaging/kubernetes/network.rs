//! Services, ingress, scraping, and that the policies let through what is needed, by both ends.

use serde_json::Value;

use super::INSTALLATIONS;
use super::cluster::{Cluster, list, selects, text};
use crate::none;
use crate::settings::host_and_port;

/// The pods behind a service: workload and pod template.
fn behind<'c>(cluster: &'c Cluster, service: &str) -> Option<(String, &'c Value)> {
    let selector = &cluster.one("Service", service)?["spec"]["selector"];
    let mut found =
        cluster.pods().into_iter().filter(|(_, pod)| selects(selector, &pod["metadata"]["labels"]));
    let one = found.next()?;
    assert!(found.next().is_none(), "{service} selects pods of several workloads");
    Some(one)
}

/// Whether a port of a rule is this one of these pods, by name or number.
fn is_port(rule: &Value, pod: &Value, number: u64) -> bool {
    let named = |name: &str| {
        list(&pod["spec"]["containers"][0]["ports"])
            .iter()
            .any(|port| port["name"] == name && port["containerPort"] == number)
    };
    rule["port"] == number || rule["port"].as_str().is_some_and(named)
}

/// Whether some policy of `on` lets `peer` through in this direction (`ingress`, `egress`).
fn allowed(
    cluster: &Cluster,
    direction: &str,
    on: &Value,
    peer: Option<&Value>,
    port: (&Value, u64),
) -> bool {
    let peers = if direction == "ingress" { "from" } else { "to" };
    cluster.all("NetworkPolicy").any(|policy| {
        let spec = &policy["spec"];
        selects(&spec["podSelector"]["matchLabels"], &on["metadata"]["labels"])
            && list(&spec[direction]).iter().any(|rule| {
                let through = rule[peers].is_null()
                    || peer.is_some_and(|peer| {
                        list(&rule[peers]).iter().any(|one| {
                            one["podSelector"].is_object()
                                && selects(
                                    &one["podSelector"]["matchLabels"],
                                    &peer["metadata"]["labels"],
                                )
                        })
                    });
                through && list(&rule["ports"]).iter().any(|one| is_port(one, port.0, port.1))
            })
    })
}

#[test]
fn services_lead_to_ports_of_pods() {
    let mut faults = Vec::new();
    for name in INSTALLATIONS {
        let Some(cluster) = Cluster::of(name) else { return };
        for service in cluster.all("Service") {
            let service_name = text(&service["metadata"]["name"]);
            let Some((_, pod)) = behind(&cluster, &service_name) else {
                faults.push(format!("{name}: {service_name} selects nothing"));
                continue;
            };
            for port in list(&service["spec"]["ports"]) {
                let number = port["port"].as_u64().expect("a number");
                let target = serde_json::json!({ "port": port["targetPort"] });
                if !is_port(&target, pod, number) {
                    faults.push(format!("{name}: {service_name} has {port}"));
                }
            }
        }
        for set in cluster.all("StatefulSet") {
            let service = text(&set["spec"]["serviceName"]);
            if cluster.one("Service", &service).is_none() {
                faults.push(format!("{name}: there is no service {service}"));
            }
        }
    }
    none("services", &faults);
}

#[test]
fn everything_is_closed_but_what_a_tier_needs() {
    let mut faults = Vec::new();
    for name in INSTALLATIONS {
        let Some(cluster) = Cluster::of(name) else { return };
        let closed = cluster.all("NetworkPolicy").any(|policy| {
            let spec = &policy["spec"];
            spec["podSelector"].as_object().is_some_and(serde_json::Map::is_empty)
                && spec["ingress"].is_null()
                && spec["egress"].is_null()
                && list(&spec["policyTypes"]).len() == 2
        });
        if !closed {
            faults.push(format!("{name}: what is not named is not closed"));
        }
        for tier in cluster.tiers() {
            let from = &tier.value["spec"]["template"];
            for endpoint in &tier.settings.reaches {
                if let Some(fault) = path(&cluster, from, endpoint) {
                    faults.push(format!("{name}: {} to {endpoint}: {fault}", tier.name));
                }
            }
            if let Some(open) = tier.settings.open
                && !allowed(&cluster, "ingress", from, None, (from, open.port().into()))
            {
                faults.push(format!("{name}: nobody gets into {}", tier.name));
            }
            if !names_are_found(&cluster, from) {
                faults.push(format!("{name}: {} finds no names", tier.name));
            }
            // A middle's ports are for tiers alone.
            for (link, endpoint) in &tier.settings.links {
                let number = host_and_port(endpoint).1.into();
                if allowed(&cluster, "ingress", from, None, (from, number)) {
                    faults.push(format!("{name}: {link} of {} is open to all", tier.name));
                }
            }
        }
    }
    none("network policies", &faults);
}

/// What is wrong with the way from these pods to an endpoint, if anything.
fn path(cluster: &Cluster, from: &Value, endpoint: &str) -> Option<String> {
    let (host, port) = host_and_port(endpoint);
    // `pod.service`, or `service`.
    let (pod, service) =
        host.split_once('.').map_or((None, host), |(pod, service)| (Some(pod), service));
    let Some((workload, to)) = behind(cluster, service) else {
        return Some(format!("no service {service}"));
    };
    if let Some(pod) = pod {
        let set = cluster.one("StatefulSet", &workload)?;
        let number: Option<u64> =
            pod.strip_prefix(&format!("{workload}-")).and_then(|number| number.parse().ok());
        let replicas = set["spec"]["replicas"].as_u64()?;
        if set["spec"]["serviceName"] != service || number.is_none_or(|number| number >= replicas) {
            return Some(format!("there is no {pod}"));
        }
    }
    if !allowed(cluster, "egress", from, Some(to), (to, port.into())) {
        return Some("it does not get out".to_owned());
    }
    if !allowed(cluster, "ingress", to, Some(from), (to, port.into())) {
        return Some("it does not get in".to_owned());
    }
    None
}

/// Whether these pods may ask the name service.
fn names_are_found(cluster: &Cluster, from: &Value) -> bool {
    cluster.all("NetworkPolicy").any(|policy| {
        selects(&policy["spec"]["podSelector"]["matchLabels"], &from["metadata"]["labels"])
            && list(&policy["spec"]["egress"]).iter().any(|rule| {
                let system = &rule["to"][0]["namespaceSelector"]["matchLabels"];
                system["kubernetes.io/metadata.name"] == "kube-system"
                    && list(&rule["ports"]).iter().any(|port| port["port"] == 53)
            })
    })
}

#[test]
fn the_drain_job_gets_to_the_middles() {
    let (Some(prod), Some(drain)) = (Cluster::of("prod"), Cluster::of(super::DRAIN)) else {
        return;
    };
    // Both lie in one namespace.
    let resources = prod.resources.iter().chain(&drain.resources).cloned().collect();
    let both = Cluster { name: "prod and drain", resources };
    let job = &both.all("Job").next().expect("a job")["spec"]["template"];
    for container in list(&job["spec"]["containers"]) {
        let endpoint = text(&container["args"][4]);
        assert_eq!(path(&both, job, &endpoint), None, "{endpoint}");
    }
    assert!(names_are_found(&both, job));
}

#[test]
fn the_ingress_leads_to_services_and_keeps_connections_open() {
    let Some(cluster) = Cluster::of("prod") else { return };
    let mut faults = Vec::new();
    for ingress in cluster.all("Ingress") {
        let timeout = &ingress["metadata"]["annotations"];
        let timeout = text(&timeout["nginx.ingress.kubernetes.io/proxy-read-timeout"]);
        if timeout.parse::<u64>().expect("seconds") < 3600 {
            faults.push(format!("idle connections end after {timeout} s"));
        }
        for rule in list(&ingress["spec"]["rules"]) {
            for path in list(&rule["http"]["paths"]) {
                let (service, port) = (&path["backend"]["service"], &path["path"]);
                let found = cluster.one("Service", &text(&service["name"]));
                let has_port = found.is_some_and(|found| {
                    let ports = list(&found["spec"]["ports"]);
                    ports.iter().any(|one| one["name"] == service["port"]["name"])
                });
                if !has_port {
                    faults.push(format!("{port} leads nowhere"));
                }
            }
        }
    }
    none("ingress", &faults);
}

#[test]
fn prometheus_finds_every_tier_and_may_ask_it() {
    let Some(cluster) = Cluster::of("prod") else { return };
    let monitor = cluster.all("PodMonitor").next().expect("a PodMonitor");
    let mut faults = Vec::new();
    for tier in cluster.tiers() {
        let pod = &tier.value["spec"]["template"];
        let selected = &monitor["spec"]["selector"]["matchLabels"];
        if !selects(selected, &pod["metadata"]["labels"]) {
            faults.push(format!("{} is not scraped", tier.name));
        }
        let port = &monitor["spec"]["podMetricsEndpoints"][0];
        if !is_port(port, pod, tier.settings.admin.port().into()) {
            faults.push(format!("{} is asked at {port}", tier.name));
        }
        let allowed = cluster.all("NetworkPolicy").any(|policy| {
            let spec = &policy["spec"];
            let rule = &spec["ingress"][0];
            selects(&spec["podSelector"]["matchLabels"], &pod["metadata"]["labels"])
                && rule["from"][0]["namespaceSelector"].is_object()
                && is_port(&rule["ports"][0], pod, tier.settings.admin.port().into())
        });
        if !allowed {
            faults.push(format!("{} may not be asked", tier.name));
        }
    }
    none("monitoring", &faults);
}
