//! All three tiers in one program: devices in at one end, Parquet files out at the other.
//!
//! `cargo run -p forebay-examples --example all_tiers_embedded`
//!
//! `Tiers` in `examples/src/lib.rs` shows how each tier is configured and started.

use std::{error::Error, fs, path::Path};

use forebay_client::{Device, Options};
use forebay_examples::Tiers;
use forebay_model::{Body, Reading, Value};

const DEVICES: usize = 10;
const MESSAGES: i64 = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let tiers = Tiers::start()?;
    let front = tiers.front_url();
    for number in 0..DEVICES {
        let device =
            Device::connect(&front, &format!("meter-{number}"), Options::default()).await?;
        for count in 0..MESSAGES {
            let reading =
                Reading { key: "count".into(), value: Value::Int(count), unit: None, time: None };
            device.send(Body::Readings(vec![reading])).await?;
        }
        device.flush().await?;
        device.close().await;
    }
    let lake = tiers.lake();
    // Draining stores what is still on the way; the folder is kept until the program ends.
    let _folder = tiers.end()?;
    let mut bytes = 0;
    let mut files = 0;
    look(&lake, &mut |size| {
        files += 1;
        bytes += size;
    })?;
    println!("{} messages in {files} Parquet files of {bytes} bytes", DEVICES as i64 * MESSAGES);
    if files == 0 {
        return Err("the lake is empty".into());
    }
    Ok(())
}

/// Calls `file` with the size of each finished file.
fn look(folder: &Path, file: &mut impl FnMut(u64)) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            look(&entry.path(), file)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "parquet") {
            file(entry.metadata()?.len());
        }
    }
    Ok(())
}
