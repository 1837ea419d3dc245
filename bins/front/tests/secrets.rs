//! No secret is in a log, a metric or an answer, whatever happened to the credential.
//!
//! Method: everything that is logged, at the finest level, is kept; credentials good and bad are
//! shown in every way there is; then the secrets are looked for. Cannot show: what a panic or a
//! core dump would hold.

mod support;

use std::{
    io,
    sync::{Arc, Mutex},
};

use forebay_model::{MessageId, SessionId};
use forebay_wire::device::{ClientFrame, Token};
use prometheus::TextEncoder;
use support::{
    Front,
    credentials::{Keys, bearer, request},
};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_logged_counted_or_answered() {
    let kept = Kept::default();
    let writer = kept.clone();
    let logs = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(logs).expect("the only test of this process");
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys::new(folder.path());
    let (good, gone) = (keys.add("acme", "pump", None), keys.add("acme", "fan", None));
    keys.revoke(&gone);
    let front = Front::with(|config| {
        config.auth.keys = Some(keys.path.clone());
        config.auth.token_in_query = true;
        config.handshake.first_message = true;
    });
    let wrong = "fbk0123.this-is-a-wrong-secret";
    for token in [&*good, &*gone, wrong] {
        for device in ["pump", "fan", "a/b"] {
            let _ = bearer(&front, device, token).await;
            let _ = request(&front, &format!("{device}?token={token}"), &[]).await;
            let offer = format!("forebay.v1.json, forebay.token.{token}");
            let opened = request(&front, device, &[("sec-websocket-protocol", &offer)]).await;
            if let Ok((_, Some(chosen))) = opened {
                assert_eq!(chosen, "forebay.v1.json");
            }
            let json = [("sec-websocket-protocol", "forebay.v1.json")];
            if let Ok((mut device, _)) = request(&front, device, &json).await {
                let session = SessionId::new(1).expect("valid");
                let token = Some(Token::new(token.to_owned()));
                let hello = ClientFrame::Hello { session, next_seq: MessageId::FIRST, token };
                device.send(&hello).await;
                let said = format!("{:?}", device.next().await);
                assert!(!said.contains(secret(&good)), "{said}");
            }
        }
    }
    // A file that is wrong is named, not quoted.
    std::fs::write(&keys.path, format!("{{\"id\":\"x\",\"secret\":\"{}\"", secret(&good)))
        .expect("written");
    support::until("the bad file is noticed", || {
        String::from_utf8_lossy(&kept.0.lock().expect("kept")).contains("new version refused")
    })
    .await;
    let metrics = TextEncoder::new().encode_to_string(&front.registry.gather()).expect("text");
    front.running.stop();
    let logs = kept.0.lock().expect("nobody panics with it");
    let logs = String::from_utf8_lossy(&logs);
    assert!(logs.contains("handshake refused"), "the logs are kept: {} bytes", logs.len());
    for token in [&*good, &*gone, wrong] {
        assert!(!logs.contains(secret(token)), "a secret is in the log");
        assert!(!metrics.contains(secret(token)), "a secret is in a metric");
    }
}

fn secret(token: &str) -> &str {
    token.split_once('.').expect("two parts").1
}
