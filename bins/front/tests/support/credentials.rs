//! Credentials for tests: a file of keys, and requests that show one.

use std::path::{Path, PathBuf};

use forebay_access::keys::{KeysFile, Owner};
use forebay_model::{DeviceId, TenantId};
use forebay_wire::device::Format;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    client_async,
    tungstenite::{self, client::IntoClientRequest as _},
};

use super::{Device, Front};

/// A file of keys in a folder.
pub struct Keys {
    pub path: PathBuf,
}

impl Keys {
    /// A new file, with one key that nobody uses.
    pub fn new(folder: &Path) -> Self {
        let keys = Self { path: folder.join("keys.jsonl") };
        keys.add("acme", "nobody", None);
        keys
    }

    /// Makes a key and returns `id.secret`.
    pub fn add(&self, tenant: &str, device: &str, expires_s: Option<u64>) -> String {
        let mut file = KeysFile::open(&self.path).expect("a file");
        let tenant = TenantId::new(tenant).expect("valid");
        let owner = Owner::Device(DeviceId::new(device).expect("valid"));
        let key = file.add(&tenant, &owner, expires_s, 1).expect("a key");
        file.save().expect("saved");
        key.expose().to_owned()
    }

    /// Revokes a key.
    pub fn revoke(&self, key: &str) {
        let mut file = KeysFile::open(&self.path).expect("a file");
        file.revoke(key.split_once('.').expect("two parts").0, 2).expect("revoked");
        file.save().expect("saved");
    }
}

/// Tries a handshake with more headers; the error is the status.
pub async fn request(
    front: &Front,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(Device, Option<String>), u16> {
    let address = front.running.addresses().ingest;
    let mut request =
        format!("ws://{address}/v1/ingest/{path}").into_client_request().expect("a request");
    let mut format = None;
    for (name, value) in headers {
        if *name == "sec-websocket-protocol" {
            format = Format::ALL.into_iter().find(|format| value.contains(format.subprotocol()));
        }
        request.headers_mut().append(*name, value.parse().expect("a value"));
    }
    let stream = TcpStream::connect(address).await.expect("a connection");
    match client_async(request, stream).await {
        Ok((socket, response)) => {
            let chosen = response.headers().get("sec-websocket-protocol");
            let chosen = chosen.map(|value| value.to_str().expect("text").to_owned());
            Ok((Device { socket, format }, chosen))
        }
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("neither opened nor refused: {error}"),
    }
}

/// As [`request`], with a bearer token, speaking JSON.
pub async fn bearer(front: &Front, device: &str, token: &str) -> Result<Device, u16> {
    let value = format!("Bearer {token}");
    let headers =
        [("authorization", value.as_str()), ("sec-websocket-protocol", "forebay.v1.json")];
    request(front, device, &headers).await.map(|(device, _)| device)
}
