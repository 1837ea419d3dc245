//! The queue without the rest of Forebay: append, die, come back, read, commit.
//!
//! `cargo run -p forebay-examples --example queue_alone`

use std::error::Error;

use forebay_queue::{Options, Queue};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    // `any_filesystem` because a folder for temporary files may be on tmpfs; leave it out where a
    // power cut matters.
    let options = Options { capacity_bytes: 1 << 20, any_filesystem: true, ..Options::default() };

    let queue = Queue::create(dir.path(), &options)?;
    // A reader that exists holds what it has not committed.
    drop(queue.reader("printer")?);
    for number in 1..=5_u64 {
        let seq = queue.append(number, format!("reading {number}").as_bytes())?;
        println!("appended {seq}");
    }
    let last = queue.appended();
    queue.wait_durable(last, std::time::Duration::from_secs(5))?;
    println!("durable up to {last}: from here on they survive whatever happens to this process");
    queue.close()?;

    let queue = Queue::open(dir.path(), &options)?;
    println!("opened again: {} entries waiting", queue.recovery().entries);
    let mut reader = queue.reader("printer")?;
    let mut read = 0;
    loop {
        let batch = reader.peek(2, 64 << 10)?;
        let Some(upto) = batch.last() else { break };
        for entry in batch.iter() {
            println!("{} {}", entry.seq, String::from_utf8_lossy(entry.payload));
            read += 1;
        }
        // Only now may their space be used again; a batch dropped without it comes once more.
        reader.commit(upto)?;
    }
    assert_eq!(read, 5, "every entry was delivered");
    Ok(())
}
