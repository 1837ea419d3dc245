//! Every query of every dashboard and every alert has something to say about running tiers.
//!
//! The real Prometheus scrapes `forebay run` under load with the rules that are shipped, and each
//! query of the dashboards is put to it as Grafana would. Alerts are to be quiet: so Prometheus says
//! that it could evaluate them, and each metric that they name is asked for by itself. The dashboard
//! of the sensors is put to a real VictoriaMetrics, which has their values through remote write.
//!
//! Cannot show: what a panel looks like.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use forebay_fleet::{script::Script, series::builtin};
use forebay_testkit::{Child, Port, Victoria, debian, http, or_skip, wait_until};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);
/// One request; the machine may be busy.
const ANSWER: Duration = Duration::from_secs(20);
/// Counters with a label have no line before the first event of that kind.
const ONLY_AFTER_AN_EVENT: [&str; 3] =
    ["forebay_front_nacks_total", "forebay_front_rejects_total", "forebay_front_handshakes_total"];
/// What the tiers do not show: others do.
const OF_CLUSTERS: [&str; 2] = ["kubelet_", "kube_"];

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/components/monitoring")
}

/// A running node and what watches it.
struct Watched {
    prometheus: SocketAddr,
    /// Where the values of the sensors are.
    victoria: SocketAddr,
    _victoria: Victoria,
    /// Ended before the folder goes.
    _processes: Vec<Child>,
    _ports: Vec<Port>,
    _folder: tempfile::TempDir,
}

fn forebay() -> Command {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
}

fn local(port: &Port) -> SocketAddr {
    ([127, 0, 0, 1], port.number()).into()
}

fn start(prometheus: &debian::Package, victoria: Victoria, folder: tempfile::TempDir) -> Watched {
    // As many as the simulator has, and one that never comes.
    let mut devices = "device,type,location\nnever,ghost,nowhere\n".to_owned();
    let script = Script::new(builtin(), 0, 0);
    for number in 0..20 {
        let device = script.device_name(number);
        writeln!(devices, "{device},pump,hall {}", number % 3).expect("a text grows");
    }
    fs::write(folder.path().join("devices.csv"), devices).expect("writes");
    let url = format!("http://{}/api/v1/write", victoria.address());
    let ports: Vec<Port> = (0..9).map(|_| Port::free().expect("a port")).collect();
    let at = |index: usize| local(&ports[index]);
    let config = format!(
        "[front.listen]\naddress = \"{}\"\n[front.admin]\naddress = \"{}\"\n\
         [front.uplink]\nmiddle = \"tcp://{}\"\n[front.queue]\ncapacity = \"4MiB\"\n\
         [middle.uplink]\nlisten = \"tcp://{}\"\n[middle.feed]\nlisten = \"tcp://{}\"\n\
         [middle.fetch]\nlisten = \"tcp://{}\"\n[middle.admin]\naddress = \"{}\"\n\
         [middle.queue]\ncapacity = \"8MiB\"\n\
         [storage.http]\naddress = \"{}\"\n[storage.admin]\naddress = \"{}\"\n\
         [[storage.middles]]\nfeed = \"tcp://{}\"\nfetch = \"tcp://{}\"\n\
         [storage.lake.flush]\nage = \"1s\"\n\
         [storage.registry]\nfiles = [\"devices.csv\"]\nsilent_after = \"10s\"\n\
         [storage.remote_write]\nenabled = true\nurl = \"{url}\"\nprefix = \"sensor_\"\n\
         hold_back = \"0s\"\n[middle.consumers]\nrequired = [\"lake\", \"remote-write\"]\ndetach = [\"remote-write\"]\n",
        at(0),
        at(1),
        at(2),
        at(2),
        at(3),
        at(4),
        at(5),
        at(6),
        at(7),
        at(3),
        at(4),
    );
    fs::write(folder.path().join("node.toml"), config).expect("writes");
    let mut processes = Vec::new();
    let mut spawn = |name: &str, command: &mut Command| {
        let child = Child::spawn(name, command.current_dir(folder.path()), folder.path());
        processes.push(child.expect("starts"));
    };
    spawn("forebay", forebay().args(["run", "--config", "node.toml"]));
    for admin in [1, 5, 7] {
        let ready = || http::get(at(admin), "/readyz", ANSWER).is_ok_and(|it| it.status == 200);
        wait_until("the tiers are ready", DEADLINE, ready);
    }
    fs::copy(shipped().join("rules.yml"), folder.path().join("rules.yml")).expect("copies");
    let config = format!(
        "global: {{scrape_interval: 500ms, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n\
         scrape_configs: [{{job_name: forebay, static_configs: [{{targets: ['{}', '{}', '{}']}}]}}]\n",
        at(1),
        at(5),
        at(7),
    );
    fs::write(folder.path().join("prometheus.yml"), config).expect("writes");
    let mut command = prometheus.command("prometheus").expect("it is in the package");
    command.arg(format!("--web.listen-address={}", at(8)));
    spawn("prometheus", command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]));
    spawn("tail", forebay().args(["tail", "--url", &format!("ws://{}", at(6))]));
    let front = format!("ws://{}", at(0));
    let sim = ["sim", "--untimed", "--devices", "20", "--rate", "300", "--url", &front];
    spawn("sim", forebay().args(sim));
    let address = victoria.address().parse().expect("an address");
    Watched {
        prometheus: at(8),
        victoria: address,
        _victoria: victoria,
        _processes: processes,
        _ports: ports,
        _folder: folder,
    }
}

impl Watched {
    /// How many series a query yields now, or what is wrong with it.
    fn series(&self, query: &str) -> Result<usize, String> {
        let target = format!("/api/v1/query?query={}", http::encode_query(query));
        let store = if query.contains("sensor_") { self.victoria } else { self.prometheus };
        let answer = http::get(store, &target, ANSWER).and_then(http::Answer::good);
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        let answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        Ok(answer["data"]["result"].as_array().map_or(0, Vec::len))
    }

    /// Asks until each yields something; what still does not, or cannot, at the deadline.
    fn silent(&self, queries: &[(String, String)]) -> Vec<String> {
        let end = Instant::now() + DEADLINE;
        let mut left: Vec<&(String, String)> = queries.iter().collect();
        loop {
            let mut silent = Vec::new();
            left.retain(|(place, query)| {
                let outcome = self.series(query);
                let quiet = !matches!(outcome, Ok(1..));
                if quiet {
                    silent.push(format!("{place}: {outcome:?}: {query}"));
                }
                quiet
            });
            if left.is_empty() || Instant::now() >= end {
                return silent;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Every query of the dashboards: place, and PromQL as Grafana fills it.
fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in fs::read_dir(shipped().join("dashboards")).expect("dashboards").flatten() {
        let text = fs::read_to_string(file.path()).expect("a text");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let variables = dashboard["templating"]["list"].as_array().expect("variables");
        for panel in dashboard["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let mut query = target["expr"].as_str().expect("a query").to_owned();
                for name in variables.iter().filter_map(|variable| variable["name"].as_str()) {
                    query = query.replace(&format!("${name}"), ".*");
                }
                if !ONLY_AFTER_AN_EVENT.iter().any(|metric| query.contains(metric)) {
                    found.push((format!("{:?}, {}", file.file_name(), panel["title"]), query));
                }
            }
        }
    }
    found
}

/// Names of metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<String> {
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let words = expression.split(word);
    words.filter(|word| word.starts_with("forebay_") || *word == "up").map(str::to_owned).collect()
}

#[test]
fn every_query_and_every_alert_has_data_from_running_tiers() {
    let Some(package) = or_skip(debian::package("prometheus")) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("victoria");
    fs::create_dir(&place).expect("makes");
    // What was written just now is shown at once.
    let victoria = Victoria::start(&place, &["-search.latencyOffset=0s"]);
    let Some(victoria) = or_skip(victoria) else { return };
    let watched = start(&package, victoria, folder);
    let queries = queries();
    assert!(queries.len() >= 60, "only {} queries", queries.len());
    let sensors = queries.iter().filter(|(_, query)| query.contains("sensor_")).count();
    assert!(sensors >= 10, "only {sensors} queries of sensors");
    let mut faults = watched.silent(&queries);

    let evaluated = || -> Result<Value, String> {
        let answer = http::get(watched.prometheus, "/api/v1/rules", ANSWER);
        let answer = answer.and_then(http::Answer::good).map_err(|error| format!("{error:#}"))?;
        serde_json::from_str(&answer).map_err(|error| error.to_string())
    };
    let all = |rules: &Value, wanted: fn(&Value) -> bool| {
        let groups = rules["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules: Vec<Value> = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect();
        !rules.is_empty() && rules.iter().all(wanted)
    };
    wait_until("every rule is evaluated", DEADLINE, || {
        evaluated().is_ok_and(|rules| all(&rules, |rule| rule["health"] != "unknown"))
    });
    let rules = evaluated().expect("rules");
    assert!(all(&rules, |rule| rule["health"] == "ok"), "{rules:#}");
    let mut named = String::new();
    for group in rules["data"]["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            let query = rule["query"].as_str().expect("a query");
            assert!(
                !metrics(query).is_empty() || OF_CLUSTERS.iter().any(|other| query.contains(other)),
                "{query}"
            );
            writeln!(named, "{query}").expect("a text grows");
        }
    }
    let named: Vec<(String, String)> =
        metrics(&named).into_iter().map(|name| ("alerts".to_owned(), name)).collect();
    faults.extend(watched.silent(&named));
    // By what the registry says of them, as the dashboard's variables pick groups.
    let groups = ["sensor_", "pump", "hall 1"];
    let [prefix, kind, place] = groups;
    let group = format!(
        "count(count by (device) ({{__name__=~\"{prefix}.+\",tenant=\"default\",type=\"{kind}\",location=\"{place}\"}})) == 7"
    );
    // The one that never came is silent, those that send are not.
    let silent = "sum by (type) (forebay_storage_devices_silent) == 1".to_owned();
    let talking = "forebay_storage_devices_silent{type=\"pump\"} == 0".to_owned();
    let told = |query| ("registry".to_owned(), query);
    faults.extend(watched.silent(&[told(group), told(silent), told(talking)]));
    assert!(faults.is_empty(), "without data:\n  {}", faults.join("\n  "));
}
