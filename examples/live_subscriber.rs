//! A reader of the live feed: the last values, then events as they come.
//!
//! `cargo run -p forebay-examples --example live_subscriber [ws://127.0.0.1:7420 [PREFIX]]`
//!
//! Without an address it starts tiers of its own and a device to look at.

use std::error::Error;

use forebay_client::{Device, Live, LiveItem, LiveOptions, Options};
use forebay_examples::Tiers;
use forebay_model::{Body, Reading, Value};
use forebay_wire::live::Subscription;

/// Events after which the example ends.
const EVENTS: usize = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (url, tiers) = match arguments.next() {
        Some(url) => (url, None),
        None => {
            let tiers = Tiers::start()?;
            (tiers.live_url(), Some(tiers))
        }
    };
    let prefix = arguments.next().unwrap_or_else(|| "pump-".to_owned());

    let subscription =
        Subscription { prefix: Some(prefix), snapshot: true, ..Subscription::default() };
    let mut live = Live::connect(&url, subscription, LiveOptions::default()).await?;
    if let Some(tiers) = &tiers {
        let device = Device::connect(&tiers.front_url(), "pump-7", Options::default()).await?;
        for number in 0..EVENTS as i64 {
            let reading =
                Reading { key: "count".into(), value: Value::Int(number), unit: None, time: None };
            device.send(Body::Readings(vec![reading])).await?;
        }
        device.flush().await?;
    }
    let mut events = 0;
    while events < EVENTS {
        let Some(item) = live.next().await else { break };
        match item? {
            LiveItem::Snapshot(snapshot) => println!("{} last values", snapshot.values.len()),
            LiveItem::Missed(missed) => println!("too slow: missed {:?} events", missed.count),
            LiveItem::Event(event) => {
                events += 1;
                for reading in &event.readings {
                    println!("{} {} = {:?}", event.device, reading.key, reading.value);
                }
            }
        }
    }
    drop(live);
    if let Some(tiers) = tiers {
        tiers.end()?;
    }
    Ok(())
}
