//! Who a connection speaks for, and the partition its messages go to.
//!
//! The ladder: a client certificate, a token in the request (a header, an entry of the subprotocol
//! list, the query if that is allowed), a token in the hello if that is allowed, nothing in
//! anonymous mode. The device and the tenant come from the credential; a path that names another
//! device is refused. In anonymous mode the path names the device, of [`TenantId::single`].

use std::{cell::Cell, rc::Rc};

use forebay_access::{Admission, Gate, Standing, of_certificate, unix_now_s};
use forebay_model::{DeviceId, TenantId};
use forebay_ops::tls::TlsServer;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::handshake::answer::Refusal;

/// Who sends over a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// Whose device it is.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
}

/// What an open connection rests on, as long as it may be asked about.
#[derive(Debug)]
pub(crate) struct Tenure {
    standing: Standing,
    /// The generation of the policy under which it was found good last.
    found_good: Cell<u64>,
    /// The certificates it showed, its own first.
    chain: Vec<CertificateDer<'static>>,
}

/// Whom a connection speaks for.
#[derive(Debug, Clone)]
pub(crate) enum Admitted {
    /// It is known; without a tenure it came anonymously.
    Known(Identity, Option<Rc<Tenure>>),
    /// The hello will say; until then the device is whom the path names.
    Pending(DeviceId),
}

/// What a request shows.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The one token in it.
    pub token: Option<String>,
    /// The certificates of the connection, its own first.
    pub chain: Vec<CertificateDer<'static>>,
}

/// Whom this front lets in.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// Lets in everybody as the device the path names.
    pub anonymous: bool,
    /// Lets a hello bring the credential.
    pub first_message: bool,
    /// Whether tokens can be checked at all.
    pub takes_tokens: bool,
    /// What checks tokens.
    pub gate: Gate,
    /// What checked certificates, to ask again.
    pub tls: Option<TlsServer>,
}

impl Policy {
    /// Anonymous devices, and those that `gate` knows.
    #[cfg(test)]
    pub(crate) fn of(gate: Gate) -> Self {
        Self { anonymous: true, first_message: false, takes_tokens: true, gate, tls: None }
    }

    /// Decides who a connection to the path of `device` speaks for.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] without a credential or with one that is worth nothing,
    /// [`Refusal::Forbidden`] with that of another device.
    pub(crate) fn admit(&self, device: DeviceId, shown: Shown) -> Result<Admitted, Refusal> {
        // Before the look: what changes during it is looked at again.
        let generation = self.generation();
        if let Some(own) = shown.chain.first() {
            let admission =
                of_certificate(own).map_err(|error| Refusal::Unauthenticated(error.to_string()))?;
            return known(&device, admission, shown.chain, generation);
        }
        match shown.token {
            // Where no token can be checked, as in a demonstration, one says nothing.
            Some(token) if self.takes_tokens => self.admit_token(&device, &token),
            _ if self.anonymous => {
                Ok(Admitted::Known(Identity { tenant: TenantId::single(), device }, None))
            }
            None if self.first_message && self.takes_tokens => Ok(Admitted::Pending(device)),
            _ => Err(Refusal::Unauthenticated("a credential is needed".to_owned())),
        }
    }

    /// As [`Self::admit`], by a token that came in the request or in the hello.
    ///
    /// # Errors
    /// As for [`Self::admit`].
    pub(crate) fn admit_token(&self, device: &DeviceId, token: &str) -> Result<Admitted, Refusal> {
        let generation = self.generation();
        let admission = self
            .gate
            .check(token, unix_now_s())
            .map_err(|denied| Refusal::Unauthenticated(denied.to_string()))?;
        known(device, admission, Vec::new(), generation)
    }

    /// Changes whenever [`Self::still_holds`] may change for another reason than time.
    pub(crate) fn generation(&self) -> u64 {
        self.gate.generation() + self.tls.as_ref().map_or(0, TlsServer::generation)
    }

    /// Whether what a connection rests on still holds. Looked up only if the policy's `generation`
    /// is another than at the last look.
    pub(crate) fn still_holds(&self, tenure: &Tenure, generation: u64, now_s: u64) -> bool {
        if tenure.standing.expires_s.is_some_and(|expires_s| expires_s <= now_s) {
            return false;
        }
        if tenure.found_good.get() == generation {
            return true;
        }
        let tls = self.tls.as_ref().filter(|_| !tenure.chain.is_empty());
        let holds = self.gate.holds(&tenure.standing, now_s)
            && tls.is_none_or(|tls| tls.recheck(&tenure.chain).is_ok());
        if holds {
            tenure.found_good.set(generation);
        }
        holds
    }
}

fn known(
    path: &DeviceId,
    admission: Admission,
    chain: Vec<CertificateDer<'static>>,
    generation: u64,
) -> Result<Admitted, Refusal> {
    let Admission { grant, standing } = admission;
    match grant.device {
        Some(device) if device == *path => {
            let identity = Identity { tenant: grant.tenant, device };
            let tenure = Tenure { standing, chain, found_good: Cell::new(generation) };
            Ok(Admitted::Known(identity, Some(Rc::new(tenure))))
        }
        Some(_) => Err(Refusal::Forbidden("the credential is of another device".to_owned())),
        None => Err(Refusal::Forbidden("the credential is not of a device".to_owned())),
    }
}

impl Identity {
    /// Which of `partitions` the device belongs to; never changes while their number stays.
    ///
    /// FNV-1a over `tenant 0x00 device` (0 occurs in neither), folded so that its weak low bits do
    /// not decide. Every front of an installation must agree, so the function is part of the
    /// protocol between the tiers, not a detail.
    pub(crate) fn partition(&self, partitions: usize) -> usize {
        let tenant = self.tenant.as_str().bytes();
        let bytes = tenant.chain(std::iter::once(0)).chain(self.device.as_str().bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let folded = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(folded % partitions as u64).expect("below a number of partitions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(device: &str) -> Identity {
        Identity { tenant: TenantId::single(), device: DeviceId::new(device).expect("valid") }
    }

    #[test]
    fn devices_spread_evenly_and_stay_where_they_are() {
        for partitions in [1, 2, 3, 5] {
            let mut counts = vec![0_usize; partitions];
            for number in 0..10_000 {
                counts[identity(&format!("device-{number}")).partition(partitions)] += 1;
            }
            let even = 10_000 / partitions;
            assert!(counts.iter().all(|count| count.abs_diff(even) < even / 10), "{counts:?}");
        }
        // Golden: a change here sends devices to another middle, past its record of duplicates.
        let golden: Vec<_> = ["a", "pump-7", "x.y:z"].map(|id| identity(id).partition(8)).into();
        assert_eq!(golden, GOLDEN);
    }

    const GOLDEN: [usize; 3] = [3, 2, 1];
}
