//! What the settings of a store say of the network: whether TLS is spoken, whether it contradicts
//! itself, and whether a password crosses in the clear.

use std::net::IpAddr;

use forebay_ops::{Faults, Validate as _, tls::StoreTls};

/// What a human should know of how a store is reached, though it is what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exposure {
    /// A password or token goes to another machine without TLS.
    Password {
        /// The section of the store.
        section: &'static str,
        /// The machine.
        host: String,
    },
    /// Anybody may answer as the store: `tls.mode` is `require`.
    Anybody {
        /// The section of the store.
        section: &'static str,
    },
}

/// What follows the scheme of a URL, which is one of two: without TLS, and over it.
pub(super) fn address<'a>(url: &'a str, schemes: [&str; 2]) -> Option<&'a str> {
    let address = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
    address.filter(|address| !address.is_empty())
}

/// Checks `tls` beside a URL whose scheme says whether TLS is spoken.
pub(super) fn validate(faults: &mut Faults, url: &str, [plain, secure]: [&str; 2], tls: &StoreTls) {
    let idle = url.starts_with(plain) && tls.is_set();
    let advice = format!("has no effect while url begins with {plain}: begin it with {secure}");
    faults.check(!idle, "tls", advice);
    faults.within("tls", |faults| tls.validate(faults));
}

/// How a store is reached.
pub(super) struct Reached<'a> {
    pub(super) section: &'static str,
    pub(super) has_password: bool,
    pub(super) tls: &'a StoreTls,
}

impl Reached<'_> {
    /// What is exposed of a store at `host`.
    pub(super) fn at(&self, host: &str, speaks_tls: bool) -> Option<Exposure> {
        let section = self.section;
        if speaks_tls {
            return (!self.tls.is_verified()).then_some(Exposure::Anybody { section });
        }
        let exposed = self.has_password && !is_loopback(host);
        exposed.then(|| Exposure::Password { section, host: host.to_owned() })
    }

    /// The same by a URL whose scheme says whether TLS is spoken.
    pub(super) fn at_url(&self, url: &str, schemes: [&str; 2]) -> Option<Exposure> {
        let address = address(url, schemes)?;
        // A password may hold a slash: what stands before the last @ is no part of the host.
        let behind_user = address.rsplit_once('@').map_or(address, |(_, behind)| behind);
        let host = behind_user.split(['/', '?', '#']).next()?;
        // A port ends it; colons within brackets are an address's own.
        let host = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        self.at(host, url.starts_with(schemes[1]))
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// PostgreSQL, whose URL says it by `sslmode`.
#[cfg(feature = "postgres")]
pub(super) mod postgres {
    use super::*;
    use crate::postgres::Address;

    /// Checks a URL against the `tls` beside it.
    pub(in crate::config) fn validate(faults: &mut Faults, url: &str, tls: &StoreTls) {
        faults.within("tls", |faults| tls.validate(faults));
        let address = match Address::parse(url) {
            Ok(address) => address,
            Err(reason) => return faults.add("url", reason),
        };
        let off = address.forbids_tls() && tls.is_set();
        faults.check(!off, "tls", "has no effect while url says sslmode=disable");
        let speaks_tls = address.speaks_tls(tls);
        let folder = speaks_tls && address.is_folder();
        faults.check(!folder, "tls", "is for TCP only, and url names the folder of a socket");
        let nameless = speaks_tls && address.is_nameless();
        faults.check(!nameless, "url", "has no host, and TLS needs a name beside hostaddr");
    }

    /// What is exposed of a server.
    pub(in crate::config) fn exposure(
        section: &'static str,
        url: &str,
        has_password_file: bool,
        tls: &StoreTls,
    ) -> Option<Exposure> {
        let address = Address::parse(url).ok()?;
        let reached =
            Reached { section, has_password: has_password_file || address.has_password(), tls };
        let speaks_tls = address.speaks_tls(tls);
        address.hosts().iter().find_map(|host| reached.at(host, speaks_tls))
    }
}

#[cfg(test)]
pub(super) fn faults_of(settings: &impl forebay_ops::Validate) -> Vec<String> {
    let mut faults = Faults::default();
    settings.validate(&mut faults);
    faults.found().iter().map(|fault| fault.path.clone()).collect()
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;
    use crate::config::{
        Clickhouse, Config, Postgres, Redis, Registry, RegistryTable, RemoteWrite,
    };

    /// The settings of the three stores whose URL's scheme says it.
    fn by_scheme(host: &str, secure: bool, tls: &StoreTls) -> Config {
        let mut config = Config::default();
        let s = if secure { "s" } else { "" };
        config.clickhouse = Clickhouse {
            enabled: true,
            url: format!("http{s}://{host}:8443"),
            password_env: Some("PASSWORD".to_owned()),
            tls: tls.clone(),
            ..Clickhouse::default()
        };
        config.remote_write = RemoteWrite {
            enabled: true,
            url: format!("http{s}://{host}/api/v1/write"),
            token_file: Some("token".into()),
            tls: tls.clone(),
            ..RemoteWrite::default()
        };
        config.redis = Redis {
            enabled: true,
            url: format!("redis{s}://a:secret@{host}:6379/0"),
            tls: tls.clone(),
            ..Redis::default()
        };
        config
    }

    #[test]
    fn a_scheme_says_whether_tls_is_spoken_and_settings_without_effect_are_faults() {
        let sections = ["clickhouse", "remote_write", "redis"];
        let (plain, none) = (StoreTls::default(), Vec::<Exposure>::new());
        for host in ["db.example", "10.0.0.1", "[2001:db8::1]"] {
            let found = by_scheme(host, false, &plain).exposures();
            let expected =
                sections.map(|section| Exposure::Password { section, host: host.to_owned() });
            assert_eq!(found, expected);
            assert_eq!(by_scheme(host, true, &plain).exposures(), none);
        }
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            assert_eq!(by_scheme(host, false, &plain).exposures(), none);
        }
        let require = Some(forebay_ops::tls::StoreTlsMode::Require);
        let anybody = StoreTls { mode: require, ..StoreTls::default() };
        let found = by_scheme("db.example", true, &anybody).exposures();
        assert_eq!(found, sections.map(|section| Exposure::Anybody { section }));
        for set in [anybody, StoreTls { ca: "ca.pem".into(), ..StoreTls::default() }] {
            let config = by_scheme("db.example", false, &set);
            assert_eq!(faults_of(&config), ["clickhouse.tls", "remote_write.tls", "redis.tls"]);
            let config = by_scheme("db.example", true, &set);
            assert_eq!(faults_of(&config), Vec::<String>::new());
        }
    }

    #[test]
    fn no_part_of_a_password_is_taken_for_a_host() {
        let plain = StoreTls::default();
        let of = |url: &str| {
            let reached = Reached { section: "redis", has_password: true, tls: &plain };
            reached.at_url(url, ["redis://", "rediss://"])
        };
        let exposed = |host: &str| Some(Exposure::Password { section: "redis", host: host.into() });
        assert_eq!(of("redis://user:pa/ss@db:6379/0"), exposed("db"));
        assert_eq!(of("redis://db:6379?protocol=resp3"), exposed("db"));
        assert_eq!(of("redis://user:a@b@localhost:6379?protocol=resp3"), None);
    }

    fn exposed(url: &str, tls: StoreTls) -> Vec<Exposure> {
        let postgres = Postgres { enabled: true, url: url.to_owned(), tls, ..Postgres::default() };
        Config { postgres, ..Config::default() }.exposures()
    }

    #[test]
    fn a_password_in_the_clear_to_another_machine_and_a_server_that_anybody_may_be_are_told() {
        let (plain, none) = (StoreTls::default(), Vec::<Exposure>::new());
        let ca = StoreTls { ca: "ca.pem".into(), ..StoreTls::default() };
        let password = |host: &str| Exposure::Password { section: "postgres", host: host.into() };
        assert_eq!(exposed("host=db user=a password=b", plain.clone()), [password("db")]);
        assert_eq!(
            exposed("host=db hostaddr=10.0.0.1 user=a password=b", plain.clone()),
            [password("10.0.0.1")]
        );
        assert_eq!(exposed("host=db user=a", plain.clone()), none);
        assert_eq!(exposed("host=db user=a password=b sslmode=require", plain.clone()), none);
        assert_eq!(exposed("host=db user=a password=b", ca), none);
        for local in ["localhost", "127.0.0.1", "::1", "/run/postgresql"] {
            assert_eq!(exposed(&format!("host={local} user=a password=b"), plain.clone()), none);
        }
        let require = Some(forebay_ops::tls::StoreTlsMode::Require);
        let anybody = StoreTls { mode: require, ..StoreTls::default() };
        let expected = [Exposure::Anybody { section: "postgres" }];
        assert_eq!(exposed("host=db user=a password=b", anybody), expected);
        let mut config = Config::default();
        config.registry.table.enabled = true;
        config.registry.table.url = "postgresql://a:b@db/plant".to_owned();
        let expected = Exposure::Password { section: "registry.table", host: "db".to_owned() };
        assert_eq!(config.exposures(), [expected]);
    }

    #[test]
    fn a_url_that_contradicts_its_tls_is_refused_and_so_is_one_that_is_not_understood() {
        let tls = StoreTls { ca: "ca.pem".into(), ..StoreTls::default() };
        let of = |url: &str, tls: &StoreTls| {
            let (url, tls) = (url.to_owned(), tls.clone());
            faults_of(&Postgres { enabled: true, url, tls, ..Postgres::default() })
        };
        let none = Vec::<String>::new();
        assert_eq!(of("host=db user=a", &tls), none);
        assert_eq!(of("host=db user=a sslmode=require", &tls), none);
        assert_eq!(of("host=db user=a sslmode=require", &StoreTls::default()), none);
        assert_eq!(of("host=db user=a sslmode=disable", &tls), ["tls"]);
        assert_eq!(of("host=/run/postgresql user=a", &tls), ["tls"]);
        assert_eq!(of("hostaddr=10.0.0.1 user=a", &tls), ["url"]);
        assert_eq!(of("hostaddr=10.0.0.1 user=a", &StoreTls::default()), none);
        assert_eq!(of("host=db user=a sslmode=verify-full", &tls), ["url"]);
        let half = StoreTls { certificate: "c".into(), ..StoreTls::default() };
        assert_eq!(of("host=db user=a", &half), ["tls.key"]);
        let url = "host=db sslmode=disable".to_owned();
        let table = RegistryTable { enabled: true, url, tls, ..RegistryTable::default() };
        assert_eq!(faults_of(&Registry { table, ..Registry::default() }), ["table.tls"]);
    }
}
