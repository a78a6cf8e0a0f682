//! The thread that owns the portal's state and records.
//!
//! Inputs come over one bounded queue, whose senders wait when it is full. Outputs go to one bounded queue per
//! connection without ever waiting: a connection whose queue is full is dropped. So the portal cannot be held up by a
//! component, and a flood of frames slows down only who sends them.

use std::{
    collections::HashMap,
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use phoenix_channel::frame::{Frame, Outgoing};
use portal_core::{
    CloseReason, ConnectError, ConnectionId, Login, Output, Portal, Request, Stats, Time,
    config::Config,
};
use serde_json::json;
use tokio::{
    runtime::Handle,
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
};

use crate::store::Store;

/// Inputs that may wait: a moment's worth of frames of many components.
const INPUT_QUEUE: usize = 1024;
/// Messages that may wait for one connection: an `init` and a burst of candidates and changes.
const OUTPUT_QUEUE: usize = 256;

/// What happens.
#[derive(Debug)]
pub enum Input {
    /// A component asks to be let in.
    Connect {
        /// Who.
        login: Box<Login>,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Admission, ConnectError>>,
    },
    /// A frame.
    Request(ConnectionId, Request),
    /// A socket is gone.
    Disconnected(ConnectionId),
    /// A new configuration.
    Reload(Box<Config>),
    /// Somebody wants the numbers.
    Stats(oneshot::Sender<Stats>),
    /// The program ends.
    Shutdown,
}

/// A component is let in.
#[derive(Debug)]
pub struct Admission {
    /// Its number.
    pub id: ConnectionId,
    /// What to send it. When this ends, close.
    pub messages: mpsc::Receiver<ToConnection>,
}

/// What a connection's task has to do.
#[derive(Debug)]
pub enum ToConnection {
    /// Write it.
    Frame(Frame),
    /// Close.
    Close(CloseReason),
}

/// Starts the thread. It ends when all senders are gone, or after [`Input::Shutdown`].
///
/// # Errors
///
/// When the operating system gives no thread.
pub fn start(
    portal: Portal,
    store: Store,
    runtime: Handle,
) -> std::io::Result<(mpsc::Sender<Input>, thread::JoinHandle<()>)> {
    let (sender, inputs) = mpsc::channel(INPUT_QUEUE);
    let actor = Actor {
        portal,
        store,
        connections: HashMap::new(),
    };
    let thread = thread::Builder::new()
        .name("portal".to_owned())
        .spawn(move || runtime.block_on(actor.run(inputs)))?;
    Ok((sender, thread))
}

/// The time now.
pub fn time() -> Time {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    Time {
        now: Instant::now(),
        unix: unix.map_or(0, |since| since.as_secs()),
    }
}

/// Why a message went nowhere.
#[derive(Debug, PartialEq, Eq)]
enum Undelivered {
    /// The component has left; the report of that may still be on its way.
    Gone,
    /// It lets its messages pile up.
    Unread,
}

struct Actor {
    portal: Portal,
    store: Store,
    connections: HashMap<ConnectionId, mpsc::Sender<ToConnection>>,
}

impl Actor {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        self.drain();
        loop {
            let deadline = self.portal.poll_timeout();
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                biased;
                () = due => None,
                input = inputs.recv() => Some(input),
            };
            match input {
                None => self.portal.handle_timeout(time()),
                Some(Some(Input::Shutdown) | None) => return self.shutdown(),
                Some(Some(input)) => self.handle(input),
            }
            self.drain();
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Connect { login, answer } => self.connect(*login, answer),
            Input::Request(id, request) => self.portal.handle_request(id, request, time()),
            Input::Disconnected(id) => {
                self.connections.remove(&id);
                self.portal.disconnected(id, time());
            }
            Input::Reload(config) => self.portal.reload(*config, time()),
            Input::Stats(answer) => {
                // Whoever asked may be gone.
                let _ = answer.send(self.portal.stats());
            }
            Input::Shutdown => {}
        }
    }

    fn connect(&mut self, login: Login, answer: oneshot::Sender<Result<Admission, ConnectError>>) {
        let component = login.component;
        let result = self.portal.connect(login, time()).map(|id| {
            let (sender, messages) = mpsc::channel(OUTPUT_QUEUE);
            self.connections.insert(id, sender);
            tracing::info!(%component, connection = id.number(), "connected");
            Admission { id, messages }
        });
        if let Err(error) = &result {
            tracing::info!(%component, %error, "refused a connection");
        }
        let id = result.as_ref().ok().map(|admission| admission.id);
        // The device's record must be kept before it hears that it is let in.
        self.drain();
        if let (Err(_), Some(id)) = (answer.send(result), id) {
            self.connections.remove(&id);
            self.portal.disconnected(id, time());
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.portal.poll_output() {
            match output {
                Output::Store(op) => {
                    if let Err(error) = self.store.apply(&op) {
                        tracing::error!(%error, "a record cannot be kept and will be lost at the next restart");
                    }
                }
                Output::Reply {
                    connection,
                    topic,
                    reference,
                    result,
                } => {
                    let frame = match result {
                        Ok(()) => Frame::reply_ok(topic, reference, json!({})),
                        Err(refusal) => Frame::reply_error(topic, reference, refusal.as_str()),
                    };
                    self.send(connection, ToConnection::Frame(frame));
                }
                Output::Push {
                    connection,
                    topic,
                    event,
                    payload,
                } => {
                    let frame = Frame::push(topic, Outgoing::new(event, payload));
                    self.send(connection, ToConnection::Frame(frame));
                }
                Output::Close { connection, reason } => {
                    self.send(connection, ToConnection::Close(reason));
                    self.connections.remove(&connection);
                }
            }
        }
    }

    fn send(&mut self, id: ConnectionId, message: ToConnection) {
        if let Err(Undelivered::Unread) = self.offer(id, message) {
            tracing::warn!(
                connection = id.number(),
                "a component does not read its messages; closing"
            );
        }
    }

    /// Queues a message, or gives the connection up: its task sees the queue end, closes and reports it as gone.
    fn offer(&mut self, id: ConnectionId, message: ToConnection) -> Result<(), Undelivered> {
        let connection = self.connections.get(&id).ok_or(Undelivered::Gone)?;
        connection.try_send(message).map_err(|error| {
            self.connections.remove(&id);
            match error {
                TrySendError::Closed(_) => Undelivered::Gone,
                TrySendError::Full(_) => Undelivered::Unread,
            }
        })
    }

    fn shutdown(&mut self) {
        for connection in self.connections.values() {
            // A full queue ends with its sender, which closes as well.
            let _ = connection.try_send(ToConnection::Close(CloseReason::Restart));
        }
    }
}

#[cfg(test)]
mod tests {
    use connlib_messages::{Dialect, Key};
    use portal_core::{
        LoginParameters, Stored,
        token::{Component, Holder, Token, TokenHash},
    };

    use super::*;
    use crate::config_file::Database;

    fn portal_and_store() -> (Portal, Store) {
        let mut config = Config::default();
        let token = Token {
            name: "relay".to_owned(),
            holder: Holder::Relay,
            expires_at: None,
        };
        config.tokens.insert(TokenHash::of("relay"), token);
        let portal = Portal::new(config, Stored::default(), [1; 32], time());
        (portal, Store::open(&Database::Memory).unwrap())
    }

    fn start_portal() -> mpsc::Sender<Input> {
        let (portal, store) = portal_and_store();
        start(portal, store, Handle::current()).unwrap().0
    }

    fn login() -> Login {
        let key = Key([1; 32]).to_string();
        let query = [("ipv4", "203.0.113.1"), ("public_key", &*key)];
        Login {
            component: Component::Relay,
            dialect: Dialect::Unversioned,
            token: Some("relay".to_owned()),
            parameters: LoginParameters::from_query(query),
            user_agent: None,
            remote_ip: std::net::Ipv4Addr::LOCALHOST.into(),
            location: Default::default(),
        }
    }

    async fn connect(inputs: &mpsc::Sender<Input>) -> Admission {
        let login = Box::new(login());
        let (answer, answered) = oneshot::channel();
        inputs.send(Input::Connect { login, answer }).await.unwrap();
        answered.await.unwrap().unwrap()
    }

    fn heartbeat(reference: u64) -> Request {
        Request {
            topic: "phoenix".to_owned(),
            event: "heartbeat".to_owned(),
            payload: json!({}),
            reference: Some(reference),
        }
    }

    #[tokio::test]
    async fn who_does_not_read_is_dropped_and_others_are_not_held_up() {
        let inputs = start_portal();
        let mut deaf = connect(&inputs).await;
        let mut other = connect(&inputs).await;
        for reference in 0..2 * OUTPUT_QUEUE as u64 {
            let request = Input::Request(deaf.id, heartbeat(reference));
            inputs.send(request).await.unwrap();
        }
        inputs
            .send(Input::Request(other.id, heartbeat(0)))
            .await
            .unwrap();
        assert!(matches!(
            other.messages.recv().await,
            Some(ToConnection::Frame(_))
        ));
        let mut read = 0;
        while deaf.messages.recv().await.is_some() {
            read += 1;
        }
        assert_eq!(read, OUTPUT_QUEUE);
    }

    /// A push to a component that left in the same moment used to be reported as one that does not read.
    #[test]
    fn who_has_hung_up_is_not_taken_for_one_that_does_not_read() {
        let (portal, store) = portal_and_store();
        let mut actor = Actor {
            portal,
            store,
            connections: HashMap::new(),
        };
        let message = || ToConnection::Frame(Frame::reply_ok("phoenix", 0, json!({})));
        let admit = |actor: &mut Actor| {
            let (answer, mut answered) = oneshot::channel();
            actor.connect(login(), answer);
            answered.try_recv().unwrap().unwrap()
        };

        let gone = admit(&mut actor).id;
        assert_eq!(actor.offer(gone, message()), Err(Undelivered::Gone));
        assert!(!actor.connections.contains_key(&gone));

        let deaf = admit(&mut actor);
        for _ in 0..OUTPUT_QUEUE {
            assert_eq!(actor.offer(deaf.id, message()), Ok(()));
        }
        assert_eq!(actor.offer(deaf.id, message()), Err(Undelivered::Unread));
        assert!(!actor.connections.contains_key(&deaf.id));
    }

    #[tokio::test]
    async fn shutdown_closes_everybody() {
        let inputs = start_portal();
        let mut admission = connect(&inputs).await;
        inputs.send(Input::Shutdown).await.unwrap();
        let message = admission.messages.recv().await;
        assert!(matches!(
            message,
            Some(ToConnection::Close(CloseReason::Restart))
        ));
        assert!(admission.messages.recv().await.is_none());
        inputs.closed().await;
    }
}
