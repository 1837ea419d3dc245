//! A device: connects, sends readings, and knows when they are safe.
//!
//! `cargo run -p forebay-examples --example device_client [ws://127.0.0.1:7400 [DEVICE]]`
//!
//! Without an address it starts tiers of its own. See `Options` for the spool on disk that a
//! device needs whose messages must survive its own restart.

use std::error::Error;

use forebay_client::{Device, Options};
use forebay_examples::Tiers;
use forebay_model::{Body, Reading, Timestamp, Value};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (url, tiers) = match arguments.next() {
        Some(url) => (url, None),
        None => {
            let tiers = Tiers::start()?;
            (tiers.front_url(), Some(tiers))
        }
    };
    let name = arguments.next().unwrap_or_else(|| "pump-7".to_owned());

    let device = Device::connect(&url, &name, Options::default()).await?;
    for step in 0..100 {
        let reading = Reading {
            key: "temperature".into(),
            value: Value::Float(21.0 + f64::from(step) / 10.0),
            unit: Some("Cel".into()),
            time: Some(Timestamp::now()),
        };
        // Returns once the message is kept here; it waits only while the window is full.
        device.send(Body::Readings(vec![reading])).await?;
    }
    // Returns once the front has acknowledged everything.
    device.flush().await?;
    println!("{name}: acknowledged up to {}", device.acked());
    device.close().await;
    if let Some(tiers) = tiers {
        tiers.end()?;
    }
    Ok(())
}
