//! What strangers and broken devices can do to others: little. Each test prints its figures.
//!
//! Method: a real front, many plain sockets, and good devices beside them whose ack latency is
//! measured: of a besieged front in turns with that of another front that nobody besieges, so that
//! whatever else the machine does befalls both. The sockets of the crowd are those of a child
//! process, so that each side has its own descriptors. `FOREBAY_CROWD=10000` makes the crowd as large
//! as the design demands; the normal run takes 2,000. Bad content is in `bad_input.rs`, a full ring in
//! `overload.rs`. Cannot show: a real network's packets, and loss on it.

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use forebay_front::config::ProxyProtocol;
use forebay_ops::ByteSize;
use forebay_testkit::rss_anon;
use forebay_wire::device::{Format, NackCode, ServerFrame};
use support::{
    Device, Event, Front,
    credentials::{Keys, bearer, request},
    data, large,
    plain::{self, BINARY, CONTINUATION, PING, Plain, frame},
};

/// Sockets of a crowd.
fn crowd() -> usize {
    std::env::var("FOREBAY_CROWD").map_or(2_000, |count| count.parse().expect("a number"))
}

/// Milliseconds within which 99 of 100 acks came, of `count` messages sent one at a time.
async fn p99(device: &mut Device, next: &mut u64, count: u64) -> f64 {
    let mut waits = Vec::new();
    for _ in 0..count {
        let sent = Instant::now();
        device.data([*next]).await;
        device.acked_at_last(*next).await;
        waits.push(sent.elapsed().as_secs_f64() * 1e3);
        *next += 1;
    }
    waits.sort_by(f64::total_cmp);
    waits[waits.len() * 99 / 100]
}

/// Turns in which a besieged front is compared with another, and messages to each in a turn.
const TURNS: usize = 7;
const MESSAGES_A_TURN: usize = 200;

/// A good device of one front.
struct Good {
    device: Device,
    next: u64,
    waits_ms: Vec<f64>,
}

impl Good {
    async fn of(front: &Front) -> Self {
        Self { device: front.device("good", Format::Cbor).await, next: 1, waits_ms: Vec::new() }
    }

    /// Sends a message and waits for its ack.
    async fn send(&mut self) {
        let sent = Instant::now();
        self.device.data([self.next]).await;
        self.device.acked_at_last(self.next).await;
        self.waits_ms.push(sent.elapsed().as_secs_f64() * 1e3);
        self.next += 1;
    }

    /// Milliseconds within which 99 of 100 acks came since the last look.
    fn p99(&mut self) -> f64 {
        let mut waits = std::mem::take(&mut self.waits_ms);
        waits.sort_by(f64::total_cmp);
        waits[waits.len() * 99 / 100]
    }
}

/// The p99 of `calm` and of `other`, message by message in turns: the medians of [`TURNS`], and that
/// of how often the one is in the other.
async fn compare(calm: &mut Good, other: &mut Good) -> (f64, f64, f64) {
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        for _ in 0..MESSAGES_A_TURN {
            calm.send().await;
            other.send().await;
        }
        turns.push((calm.p99(), other.p99()));
    }
    let median = |of: fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> = turns.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[TURNS / 2]
    };
    (median(|turn| turn.0), median(|turn| turn.1), median(|turn| turn.1 / turn.0))
}

/// What a crowd does once it is connected.
#[derive(Clone, Copy)]
enum Deed {
    /// Nothing at all, and the same again once the front closes.
    Silent,
    /// Half a request, and the same again once the front closes.
    Half,
    /// A whole session each, as after an outage.
    Storm,
}

/// A child process full of sockets; it ends when this is dropped.
struct Crowd(Child);

impl Crowd {
    /// Starts one; it says in a line on its standard output when all have connected.
    fn start(address: SocketAddr, count: usize, deed: Deed) -> Self {
        let deed = match deed {
            Deed::Silent => "silent",
            Deed::Half => "half",
            Deed::Storm => "storm",
        };
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "a_crowd", "--ignored", "--nocapture"])
            .env("CROWD_ADDRESS", address.to_string())
            .env("CROWD_COUNT", count.to_string())
            .env("CROWD_DEED", deed)
            .stdout(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .expect("a child");
        Self(child)
    }

    /// The line that begins with `word`; `None` if the child ended without one.
    fn says(&mut self, word: &str) -> Option<String> {
        let out = self.0.stdout.take().expect("piped");
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        lines.find(|line| line.starts_with(word))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The child of [`Crowd`].
#[test]
#[ignore = "only as a child"]
fn a_crowd() {
    let variable = |name: &str| std::env::var(name).expect(name);
    let address: SocketAddr = variable("CROWD_ADDRESS").parse().expect("an address");
    let count: usize = variable("CROWD_COUNT").parse().expect("a number");
    let deed = variable("CROWD_DEED");
    let begun = Instant::now();
    let come = |number: usize| {
        // The kernel's backlog may be full for a moment.
        let mut socket = TcpStream::connect(address).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let request = plain::request(&format!("crowd-{number}"), "forebay.v1.json");
        let sent = match &*deed {
            "half" => socket.write_all(&request.as_bytes()[..request.len() / 2]),
            "storm" => socket.write_all(
                &[request.as_bytes(), &frame(true, plain::TEXT, br#"{"session":1,"next_seq":1}"#)]
                    .concat(),
            ),
            _ => Ok(()),
        };
        sent.is_ok().then_some(socket)
    };
    let mut sockets: Vec<_> = (0..count).map(come).collect();
    let mut welcomed = 0;
    if deed == "storm" {
        for socket in sockets.iter_mut().flatten() {
            let mut answer = Vec::new();
            let mut bytes = [0; 512];
            while !answer.windows(7).any(|part| part == b"\"level\"") {
                match socket.read(&mut bytes) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => answer.extend_from_slice(&bytes[..count]),
                }
            }
            welcomed += usize::from(answer.windows(7).any(|part| part == b"\"level\""));
        }
    }
    let open = sockets.iter().flatten().count();
    println!("\nready {welcomed} of {open} after {} ms", begun.elapsed().as_millis());
    if deed == "storm" {
        // Until the parent ends it.
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    // A siege: who is closed comes again. Until the parent kills it.
    loop {
        for (number, socket) in sockets.iter_mut().enumerate() {
            let is_open = socket.as_mut().is_some_and(|socket| {
                socket.set_nonblocking(true).expect("a socket");
                let waits = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
                socket.read(&mut [0; 512]).map_or_else(waits, |count| count > 0)
            });
            if !is_open {
                *socket = come(number);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_half_open_sockets_do_not_slow_good_devices_down() {
    let calm = Front::start();
    let mut of_calm = Good::of(&calm).await;
    for deed in [Deed::Silent, Deed::Half] {
        let front = Front::start();
        let mut of_front = Good::of(&front).await;
        let rss_before = rss_anon(std::process::id()).expect("Linux");
        let crowd_of = crowd();
        let address = front.running.addresses().ingest;
        let said = tokio::task::spawn_blocking(move || {
            let mut crowd = Crowd::start(address, crowd_of, deed);
            (crowd.says("ready"), crowd)
        });
        let (said, _crowd) = said.await.expect("it says so");
        let said = said.expect("a line");
        let (beside, during, times) = compare(&mut of_calm, &mut of_front).await;
        // A good device that comes new gets in among them.
        let came = Instant::now();
        let mut newcomer = front.device("newcomer", Format::Cbor).await;
        newcomer.data([1]).await;
        newcomer.acked(1).await;
        let let_in = came.elapsed();
        let rss = rss_anon(std::process::id()).expect("Linux").saturating_sub(rss_before);
        eprintln!(
            "{} {crowd_of} sockets ({said}): p99 {during:.2} ms, {beside:.2} ms of a front beside \
             it, {times:.2} times; a new device in after {let_in:?}; {} KiB more memory; {} times \
             one met a deadline",
            if matches!(deed, Deed::Silent) { "silent" } else { "half-open" },
            rss / 1024,
            front.metric("forebay_front_handshakes_total", &[]) - 2.0,
        );
        assert!(times <= 2.0, "p99 {beside:.2} ms without them is {during:.2} ms with them");
        // Ten times the crowd's turns: a crowd is worked off at 2,000 a second.
        assert!(let_in < Duration::from_secs(15), "a new device waited {let_in:?}");
        assert!(rss < 64 << 20, "{rss} bytes for {crowd_of} strangers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_storm_is_served_within_seconds() {
    let front = Front::start();
    let count = crowd();
    let begun = Instant::now();
    let mut crowd = Crowd::start(front.running.addresses().ingest, count, Deed::Storm);
    let said = tokio::task::spawn_blocking(move || (crowd.says("ready"), crowd)).await;
    let (said, _crowd) = said.expect("it says so");
    let said = said.expect("a line");
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    eprintln!("storm of {count}: {said}; {rate:.0} sessions a second, the crowd's side included");
    assert!(said.starts_with(&format!("ready {count} of {count} ")), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_messages_cost_no_more_than_the_cap_of_each_connection() {
    let front = Front::start();
    let cap = front.config.limits.message.as_usize();
    let before = rss_anon(std::process::id()).expect("Linux");
    let mut half = frame(true, BINARY, &vec![7; cap]);
    half.truncate(half.len() - 1);
    let mut open = Vec::new();
    for number in 0..200 {
        let mut plain = Plain::open(&front, &format!("half-{number}"), "").await;
        plain.write(&half).await;
        open.push(plain);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let used = rss_anon(std::process::id()).expect("Linux").saturating_sub(before);
    let allowed = 200 * (cap as u64 * 2 + 16 * 1024) + (16 << 20);
    eprintln!("200 half messages of {cap} B: {} KiB a connection", used / 200 / 1024);
    assert!(used < allowed, "{used} bytes for 200 half messages");
    let mut good = support::Neighbour::new(&front).await;
    good.is_well().await;
    // The message in many parts is bounded by the same cap.
    let mut plain = Plain::open(&front, "parts", "").await;
    plain.write(&frame(false, BINARY, &vec![7; cap / 2])).await;
    plain.write(&frame(false, CONTINUATION, &vec![7; cap / 2])).await;
    plain.write(&frame(true, CONTINUATION, b"one too many")).await;
    assert_eq!(plain.close_code().await, 1009);
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_pings_and_crumbs_do_not_slow_good_devices_down() {
    // What the crumbs add up to is stored, and nobody empties the ring.
    let front = Front::with(|config| config.queue.capacity = ByteSize::mib(32));
    let mut device = front.device("good", Format::Cbor).await;
    let mut next = 1;
    p99(&mut device, &mut next, 50).await;
    let before = p99(&mut device, &mut next, 300).await;
    let address = front.running.addresses().ingest;
    let flood = |name: &'static str, bytes: Vec<u8>| {
        tokio::spawn(async move {
            let mut plain = Plain::to(address).await;
            plain.write(plain::request(name, "").as_bytes()).await;
            plain.read_head().await;
            let mut sent = 0_u64;
            // Answers are never read: the front's write buffer has its cap.
            while tokio::io::AsyncWriteExt::write_all(&mut plain.stream, &bytes).await.is_ok() {
                sent += bytes.len() as u64;
                if sent > 64 << 20 {
                    break;
                }
            }
            sent
        })
    };
    let pings = frame(true, PING, &[9; 125]).repeat(500);
    let mut crumbs = frame(false, BINARY, b"x");
    crumbs.extend(frame(false, CONTINUATION, b"x").repeat(9_000));
    crumbs.extend(frame(true, CONTINUATION, b"x"));
    let floods =
        [flood("pings-1", pings.clone()), flood("pings-2", pings), flood("crumbs", crumbs)];
    let during = p99(&mut device, &mut next, 300).await;
    eprintln!("floods: p99 {before:.1} ms before, {during:.1} ms during");
    // The flooders take what is left of two cores, so does their sending side.
    assert!(during <= 2.0 * before + 60.0, "p99 {before:.1} ms became {during:.1} ms");
    floods.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn one_tenant_cannot_send_for_all_nor_fill_the_ring() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys::new(folder.path());
    let flooders: Vec<_> = (0..3).map(|n| keys.add("acme", &format!("f{n}"), None)).collect();
    let good = keys.add("zeta", "good", None);
    let path = keys.path.clone();
    let front = Front::with(|config| {
        config.auth.keys = Some(path.clone());
        config.queue.capacity = ByteSize::mib(2);
        config.queue.tenant_share = 40;
        config.limits.read_pause = Duration::from_millis(200).into();
    });
    // Nobody empties the ring; the flooders fill their share.
    for (number, key) in flooders.iter().enumerate() {
        let mut device = bearer(&front, &format!("f{number}"), key).await.expect("let in");
        device.hello(1, 1).await;
        for seq in 1..=30 {
            device.feed(&data(seq, large(40_000))).await;
        }
        device.flush().await;
        loop {
            match device.next().await {
                Event::Frame(ServerFrame::Nack { code, .. }) => {
                    assert_eq!(code, NackCode::Full);
                    break;
                }
                Event::Frame(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let stat = front.stat();
    let share = stat.used_bytes as f64 / stat.capacity_bytes as f64;
    eprintln!("three devices of one tenant filled {:.0} % of the ring", share * 100.0);
    assert!((0.3..0.5).contains(&share), "{share}");
    // The other tenant has the rest.
    let mut device = bearer(&front, "good", &good).await.expect("let in");
    device.hello(1, 1).await;
    device.data(1..=100).await;
    device.acked(100).await;

    let front = Front::with(|config| {
        config.auth.keys = Some(path);
        config.rate.tenant_messages_per_second = 20;
    });
    let mut nacked = 0;
    for (number, key) in flooders.iter().enumerate() {
        let mut device = bearer(&front, &format!("f{number}"), key).await.expect("let in");
        device.hello(1, 1).await;
        device.data(1..=20).await;
        let mut acked = 0;
        while acked < 20 {
            match device.next().await {
                Event::Frame(ServerFrame::Ack { ack, .. }) => acked = ack.get(),
                Event::Frame(ServerFrame::Nack { code: NackCode::Rate, .. }) => {
                    nacked += 1;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(nacked >= 2, "the tenant's 20 a second were gone after the first device: {nacked}");
    let mut device = bearer(&front, "good", &good).await.expect("let in");
    device.hello(1, 1).await;
    device.data(1..=10).await;
    device.acked(10).await;
}

#[tokio::test]
async fn an_address_has_its_share_of_connections_also_behind_a_proxy() {
    let trusted = || vec!["127.0.0.1".parse().expect("a network")];
    let limited = |change: fn(&mut forebay_front::Config)| {
        Front::with(|config| {
            config.limits.connections_per_address = 2;
            change(config);
        })
    };
    let front = limited(|_| {});
    let forged = [("x-forwarded-for", "192.0.2.1")];
    let (_one, _two) = (request(&front, "a", &[]).await, request(&front, "b", &forged).await);
    // Who is no proxy of ours is not believed; there is nobody to answer before the request.
    let mut third = Plain::connect(&front).await;
    assert!(third.ended(support::PATIENCE).await);

    let front = Front::with(|config| {
        config.limits.connections_per_address = 2;
        config.proxy.protocol = ProxyProtocol::XForwardedFor;
        config.proxy.trusted = trusted();
    });
    let from = async |value: &str| request(&front, "a", &[("x-forwarded-for", value)]).await;
    let _one = from("192.0.2.1").await.expect("the first");
    // The nearest address counts; what is before it was written by the device.
    let _two = from("10.9.9.9, 192.0.2.1").await.expect("the second");
    assert_eq!(from("10.9.9.8, 192.0.2.1").await.err(), Some(429));
    assert!(from("192.0.2.2").await.is_ok());
    assert!(from("192.0.2.1, 127.0.0.1").await.is_err(), "through two proxies of ours");
}
