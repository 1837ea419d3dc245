//! Reads the figures a tier shows on its admin port, as Prometheus would.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A tier that does not answer within this is down as far as a display is concerned.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// A page of figures is some tens of KiB.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// One page of `/metrics`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page(String);

/// Gets the page, or nothing if the tier does not answer.
pub(crate) fn metrics(admin: SocketAddr) -> Option<Page> {
    let text = get(admin, "/metrics").ok()?;
    Some(Page(text))
}

/// Whether the tier says it is ready.
pub(crate) fn is_ready(admin: SocketAddr) -> bool {
    get(admin, "/readyz").is_ok()
}

/// The body of a page with status 200.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    socket.set_write_timeout(Some(ANSWER_WITHIN))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.take(PAGE_BYTES_MAX).read_to_string(&mut answer)?;
    let bad = || std::io::Error::other(format!("{path} of {address} is not to be had"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head.split(' ').nth(1).ok_or_else(bad)?;
    if status == "200" { Ok(body.to_owned()) } else { Err(bad()) }
}

impl Page {
    /// A page that was had in another way.
    #[allow(dead_code, reason = "a test that reads pages has them from here alone")]
    pub(crate) fn of(text: String) -> Self {
        Self(text)
    }

    /// A metric's values by their labels as they stand between the braces.
    #[allow(dead_code, reason = "a test that reads pages looks at sums alone")]
    pub(crate) fn each(&self, name: &str) -> Vec<(String, f64)> {
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let (labels, number) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels.replace('"', ""), number.trim().parse().ok()?))
        };
        self.0.lines().filter_map(value).collect()
    }

    /// The buckets of a histogram without labels: upper edge and count up to it, ascending.
    #[allow(dead_code, reason = "a test that reads pages looks at sums alone")]
    pub(crate) fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let edge = |(labels, count): (String, f64)| {
            let edge = labels.strip_prefix("le=")?;
            let edge = if edge == "+Inf" { f64::INFINITY } else { edge.parse().ok()? };
            Some((edge, count))
        };
        self.each(&format!("{name}_bucket")).into_iter().filter_map(edge).collect()
    }

    /// The sum of a metric over all its labels that match; `None` if there is none.
    ///
    /// `labels` are texts like `queue="log"`, all of which a line must have.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let mut sum = None;
        for line in self.0.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            if !rest.starts_with(['{', ' ']) || !labels.iter().all(|label| rest.contains(label)) {
                continue;
            }
            if let Some(number) = rest.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok())
            {
                sum = Some(sum.unwrap_or(0.0) + number);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_summed_over_matching_labels() {
        let page = Page(
            "# TYPE a gauge\na{queue=\"one\"} 3\na{queue=\"two\"} 4.5\na_total 9\nb 1e3\n"
                .to_owned(),
        );
        assert_eq!(page.sum("a", &[]), Some(7.5));
        assert_eq!(page.sum("a", &["queue=\"two\""]), Some(4.5));
        assert_eq!(page.sum("b", &[]), Some(1000.0));
        assert_eq!(page.sum("c", &[]), None);
        let each = page.each("a");
        assert_eq!(each, [("queue=one".to_owned(), 3.0), ("queue=two".to_owned(), 4.5)]);
        assert_eq!(page.each("b"), [(String::new(), 1000.0)]);
    }
}
