//! That a new version is taken, a bad one is not, and each is told once.

use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use prometheus::Registry;

use super::*;

/// Never comes by itself: the tests look when they mean to.
const NEVER: Duration = Duration::from_secs(3_600);

struct Place {
    folder: tempfile::TempDir,
    registry: Registry,
}

impl Place {
    fn new(texts: &[&str]) -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap(), registry: Registry::new() };
        for (at, text) in texts.iter().enumerate() {
            place.put(at, text);
        }
        place
    }

    fn file(&self, at: usize) -> PathBuf {
        self.folder.path().join(at.to_string())
    }

    fn put(&self, at: usize, text: &str) {
        std::fs::write(self.file(at), text).unwrap();
    }

    /// The sum of the numbers in all files.
    fn open(&self, files: usize, every: Duration) -> Result<Watched<i64>, ReloadError> {
        let files = (0..files).map(|at| self.file(at)).collect();
        let metrics = Metrics::new(&self.registry);
        Watched::open_every(every, "numbers", files, &metrics, |contents| {
            contents
                .iter()
                .map(|bytes| String::from_utf8_lossy(bytes).trim().parse::<i64>())
                .sum::<Result<i64, _>>()
        })
    }

    fn value(&self, name: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let metric = &family.get_metric()[0];
        (metric.get_counter().get_value() + metric.get_gauge().get_value()) as u64
    }
}

#[test]
fn a_new_version_of_any_file_is_taken_over_and_told() {
    let place = Place::new(&["1", "20"]);
    let watched = place.open(2, NEVER).unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let hook = Arc::clone(&told);
    watched.on_change(move |sum| hook.store(**sum as usize, Ordering::SeqCst));
    assert_eq!((*watched.get(), watched.generation()), (21, 1));
    assert!(!watched.look(), "nothing has changed");
    place.put(1, "30");
    assert!(watched.look());
    assert_eq!((*watched.get(), watched.generation(), told.load(Ordering::SeqCst)), (31, 2, 31));
    assert!(!watched.look());
    assert_eq!(place.value("forebay_reload_taken_total"), 1);
}

#[test]
fn a_change_of_the_same_length_within_one_tick_of_the_clock_is_seen() {
    let place = Place::new(&["1"]);
    let watched = place.open(1, NEVER).unwrap();
    let before = std::fs::metadata(place.file(0)).unwrap().modified().unwrap();
    place.put(0, "2");
    std::fs::File::options().write(true).open(place.file(0)).unwrap().set_modified(before).unwrap();
    assert!(watched.look());
    assert_eq!(*watched.get(), 2);
}

#[test]
fn a_bad_version_keeps_the_old_one_and_is_counted_once() {
    let place = Place::new(&["1"]);
    let watched = place.open(1, NEVER).unwrap();
    place.put(0, "nonsense");
    for _ in 0..3 {
        assert!(!watched.look());
    }
    assert_eq!((*watched.get(), watched.generation()), (1, 1));
    assert_eq!(
        (place.value("forebay_reload_refused_total"), place.value("forebay_reload_good")),
        (1, 0)
    );
    std::fs::remove_file(place.file(0)).unwrap();
    for _ in 0..3 {
        assert!(!watched.look());
    }
    assert_eq!((*watched.get(), place.value("forebay_reload_refused_total")), (1, 2));
    place.put(0, "5");
    assert!(watched.look());
    assert_eq!((*watched.get(), place.value("forebay_reload_good")), (5, 1));
}

#[test]
fn a_link_that_is_swapped_is_followed() {
    let place = Place::new(&["1", "2"]);
    let link = place.folder.path().join("link");
    std::os::unix::fs::symlink(place.file(0), &link).unwrap();
    let metrics = Metrics::new(&place.registry);
    let parse = |contents: &[Vec<u8>]| String::from_utf8(contents[0].clone());
    let watched = Watched::open_every(NEVER, "link", vec![link.clone()], &metrics, parse).unwrap();
    let next = place.folder.path().join("next");
    std::os::unix::fs::symlink(place.file(1), &next).unwrap();
    std::fs::rename(next, link).unwrap();
    assert!(watched.look());
    assert_eq!(*watched.get(), "2");
}

#[test]
fn the_thread_looks_by_itself_and_ends_with_the_last_handle() {
    let place = Place::new(&["1"]);
    let watched = place.open(1, Duration::from_millis(5)).unwrap();
    let (send, changed) = mpsc::channel();
    watched.on_change(move |sum| send.send(**sum).unwrap());
    place.put(0, "7");
    assert_eq!(changed.recv_timeout(Duration::from_secs(20)), Ok(7));
    drop(watched.clone());
    assert_eq!(*watched.get(), 7);
    let asked = Instant::now();
    drop(watched);
    // The hook, and with it the sender, goes with the last one who holds it.
    assert_eq!(changed.recv_timeout(Duration::from_secs(20)), Err(RecvTimeoutError::Disconnected));
    assert!(asked.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_cannot_be_read_at_the_start_is_an_error_with_its_place() {
    let place = Place::new(&["x"]);
    let error = place.open(1, NEVER).unwrap_err().to_string();
    assert!(error.contains("numbers: invalid digit"), "{error}");
    let error = place.open(2, NEVER).unwrap_err().to_string();
    assert!(error.contains("/1: No such file"), "{error}");
}
