//! The thread that accepts connections and hands each to the core that has the fewest.

use std::{
    io,
    net::{self, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

use crate::{
    config::Listen,
    core::{Arrival, Seat},
    front::{Front, Phase},
};

/// Pause after a failed accept, usually for want of file descriptors: until some are given back.
const PAUSE: Duration = Duration::from_millis(50);

/// The acceptor's end of a core.
pub(crate) struct Door {
    /// Where arriving connections go.
    pub arrivals: mpsc::Sender<Arrival>,
    /// How many the core has.
    pub load: Arc<AtomicUsize>,
}

/// Binds the WebSocket port.
///
/// # Errors
/// The address is taken or not ours.
pub(crate) fn bind(listen: &Listen) -> io::Result<net::TcpListener> {
    let address = listen.address;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted front must not wait for the connections of its predecessor to time out.
    socket.set_reuse_address(true)?;
    if listen.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(listen.backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts until the front stops. While it drains it goes on, so that devices get an answer.
pub(crate) async fn run(
    front: Arc<Front>,
    listener: net::TcpListener,
    doors: Vec<Door>,
    mut phase: watch::Receiver<Phase>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => forebay_ops::fatal(format_args!("the listener cannot be watched: {error}")),
    };
    loop {
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase == Phase::Stopped) => return,
            accepted = accept(&listener) => match accepted {
                Ok((stream, peer)) => hand_over(&front, &doors, stream, peer).await,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

/// The next connection, free to be watched by another runtime than this thread's.
async fn accept(listener: &TcpListener) -> io::Result<(net::TcpStream, SocketAddr)> {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // An ack is one small segment that somebody waits for.
                stream.set_nodelay(true)?;
                return Ok((stream.into_std()?, peer));
            }
            // The peer left while it was waiting.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Gives the connection to the core with the fewest that takes one now; waits if none does.
async fn hand_over(front: &Front, doors: &[Door], stream: net::TcpStream, peer: SocketAddr) {
    let mut order: Vec<&Door> = doors.iter().collect();
    order.sort_by_key(|door| door.load.load(Ordering::Relaxed));
    let mut stream = stream;
    for door in &order {
        let seat = Seat::take(&front.connections, &door.load);
        match door.arrivals.try_send(Arrival { stream, peer, seat }) {
            Err(mpsc::error::TrySendError::Full(back)) => stream = back.stream,
            // Handed over, or the front stops.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
    // All cores have as many handshakes as they may; the others wait in the kernel's backlog.
    if let Some(door) = order.first() {
        let seat = Seat::take(&front.connections, &door.load);
        let _ = door.arrivals.send(Arrival { stream, peer, seat }).await;
    }
}
