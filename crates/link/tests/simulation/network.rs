//! Connections that lose, repeat, reorder and delay frames, go half-open, and break.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use forebay_link::machine::Random;

use crate::world::Client;

/// Names a connection; the servers' machines address their peers by it.
pub(crate) type ConnectionId = u64;

/// How bad it is, in chances of 1,000.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) reordered: u64,
    pub(crate) delay_us_max: u64,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) middle: usize,
    /// The peers believe in it, and nothing passes.
    pub(crate) half_open: bool,
    /// When the last frame of each direction arrives: order is kept up to here.
    arrives: [Duration; 2],
}

/// A frame on its way.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) at: Duration,
    pub(crate) connection: ConnectionId,
    pub(crate) to_server: bool,
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    pub(crate) connections: HashMap<ConnectionId, Connection>,
    next: ConnectionId,
    /// Nothing passes between a client and a middle until then.
    cut_until: HashMap<(Client, usize), Duration>,
}

impl Network {
    pub(crate) fn connect(&mut self, client: Client, middle: usize) -> ConnectionId {
        self.next += 1;
        let arrives = [Duration::ZERO; 2];
        let connection = Connection { client, middle, half_open: false, arrives };
        self.connections.insert(self.next, connection);
        self.next
    }

    pub(crate) fn cut(&mut self, client: Client, middle: usize, until: Duration) {
        self.cut_until.insert((client, middle), until);
    }

    pub(crate) fn is_cut(&self, client: Client, middle: usize, now: Duration) -> bool {
        self.cut_until.get(&(client, middle)).is_some_and(|until| now < *until)
    }

    pub(crate) fn heal(&mut self) {
        self.cut_until.clear();
        self.weather = Weather { delay_us_max: 1_000, ..Weather::default() };
    }

    /// What becomes of a frame that is sent.
    pub(crate) fn send(
        &mut self,
        now: Duration,
        id: ConnectionId,
        to_server: bool,
        bytes: Bytes,
        random: &mut Random,
    ) -> Vec<Delivery> {
        let weather = self.weather;
        let Some(connection) = self.connections.get_mut(&id) else { return Vec::new() };
        let (client, middle) = (connection.client, connection.middle);
        let cut = self.cut_until.get(&(client, middle)).is_some_and(|until| now < *until);
        let mut chance = |of_thousand: u64| of_thousand > 0 && random.below(1_000) < of_thousand;
        if connection.half_open || cut || chance(weather.lost) {
            return Vec::new();
        }
        let copies = 1 + usize::from(chance(weather.repeated));
        let reordered = chance(weather.reordered);
        let mut deliveries = Vec::with_capacity(copies);
        for copy in 0..copies {
            let delay = Duration::from_micros(50 + random.below(weather.delay_us_max.max(1)));
            let arrives = &mut connection.arrives[usize::from(to_server)];
            let at = if reordered || copy > 0 {
                now + delay * 4
            } else {
                *arrives = (now + delay).max(*arrives);
                *arrives
            };
            deliveries.push(Delivery { at, connection: id, to_server, bytes: bytes.clone() });
        }
        deliveries
    }
}
