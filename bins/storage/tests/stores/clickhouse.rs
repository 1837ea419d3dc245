//! ClickHouse in storms and stalls; its other tests are beside this folder, in `clickhouse*.rs`.

use std::path::Path;

use forebay_testkit::clickhouse::ClickHouse;

use crate::storm::Store;

fn number(server: &ClickHouse, sql: &str) -> u64 {
    server.query(sql).unwrap().parse().unwrap()
}

/// The section of the configuration for the real binary.
pub(crate) fn section(server: &ClickHouse) -> String {
    format!(
        "[clickhouse]\nenabled = true\nurl = \"{}\"\nsend_timeout = \"5s\"\n\
         answer_timeout = \"5s\"\nflush = {{ rows = 2000, age = \"50ms\" }}\n",
        server.url()
    )
}

impl Store for ClickHouse {
    const NAME: &'static str = "clickhouse";

    fn section(&self, _: &Path) -> String {
        section(self)
    }

    fn kill(&mut self) {
        ClickHouse::kill(self).unwrap();
    }

    fn restart(&mut self) {
        ClickHouse::restart(self).unwrap();
    }

    fn count(&self) -> u64 {
        number(self, "SELECT count() FROM forebay.readings")
    }

    fn distinct(&self) -> u64 {
        number(self, "SELECT uniqExact(tenant, device, session, seq, index) FROM forebay.readings")
    }

    fn identities(&self) -> Vec<String> {
        let identity = "concat(tenant, ' ', device, ' ', session, ' ', seq, ' ', index)";
        let sql = format!("SELECT {identity} FROM forebay.readings FORMAT TSVRaw");
        self.query(&sql).unwrap().lines().map(str::to_owned).collect()
    }

    fn locations(&self) -> u64 {
        let sql = "SELECT uniqExact(location) FROM forebay.readings WHERE location != ''";
        number(self, sql)
    }

    fn faults(&self) -> Vec<String> {
        let sql = "SELECT count() FROM forebay.readings WHERE number IS NOT NULL";
        let numbers = number(self, sql);
        let rolled = |bucket: &str| {
            let rolled = number(self, &format!("SELECT sum(count) FROM forebay.readings_{bucket}"));
            let fault = format!("the rollup by {bucket} has {rolled} of {numbers} numbers");
            (rolled != numbers).then_some(fault)
        };
        ["minute", "hour"].into_iter().filter_map(rolled).collect()
    }
}
