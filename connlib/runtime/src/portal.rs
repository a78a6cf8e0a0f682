//! The channel to the portal as a task: messages between the WebSocket and the data thread.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use connlib_messages::{Dialect, Message};
use connlib_session::{PortalInput, PortalOutput};
use connlib_tunnel::PublicKey;
use phoenix_channel::{
    Channel, Event, Options, Outgoing, Resolver, SendError, driver::system_resolver,
};
use tokio::sync::mpsc;

use crate::worker::Output;

/// Between the channel and the data threads.
pub(crate) trait Desk: Send {
    /// Messages of the portal.
    type FromPortal: Message;
    /// Messages to the portal.
    type ToPortal: Message;

    /// What to say at login besides the key.
    fn login_parameters(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// Hands an input to whom it is for; false once there is nobody.
    fn deliver(
        &mut self,
        input: PortalInput<Self::FromPortal, Self::ToPortal>,
    ) -> impl Future<Output = bool> + Send;
    /// What of a data thread's output has to happen on the channel.
    fn merge(
        &mut self,
        output: Output<Self::ToPortal>,
    ) -> impl Future<Output = Option<PortalOutput<Self::ToPortal>>> + Send;
}

/// Drives `channel` until it ends or the data threads are gone. The first [`PortalOutput::Reconnect`] opens it.
pub(crate) async fn drive<D: Desk>(
    mut channel: Channel,
    mut outputs: mpsc::Receiver<Output<D::ToPortal>>,
    mut desk: D,
) {
    loop {
        let input = tokio::select! {
            output = outputs.recv() => match output {
                Some(output) => match desk.merge(output).await {
                    Some(PortalOutput::Send(message)) => send(&mut channel, message),
                    Some(PortalOutput::Reconnect { public_key }) => {
                        let mut parameters = login_parameters(public_key);
                        parameters.extend(desk.login_parameters());
                        channel.connect(parameters);
                        None
                    }
                    None => None,
                },
                None => break,
            },
            event = channel.next() => match event {
                Ok(event) => translate(event),
                Err(error) => {
                    desk.deliver(PortalInput::Failed(error)).await;
                    return;
                }
            },
        };
        if let Some(input) = input
            && !desk.deliver(input).await
        {
            break;
        }
    }
    close(channel).await;
}

/// Tells the portal that we leave; it frees our place at once instead of after its time-out.
async fn close(mut channel: Channel) {
    if channel.close().is_err() {
        return;
    }
    let closed = async { while !matches!(channel.next().await, Ok(Event::Closed) | Err(_)) {} };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), closed).await;
}

fn send<M, S: Message>(channel: &mut Channel, message: S) -> Option<PortalInput<M, S>> {
    let outgoing = Outgoing::new(message.event(Dialect::Unversioned), message.payload());
    match channel.send(outgoing) {
        Ok(()) => None,
        Err(SendError::NotConnected(_) | SendError::QueueFull(_)) => {
            Some(PortalInput::Unsent(message))
        }
    }
}

fn translate<M: Message, S>(event: Event) -> Option<PortalInput<M, S>> {
    match event {
        Event::Connected => {
            tracing::info!("Connected to the portal");
            Some(PortalInput::Connected)
        }
        Event::Message(message) => match M::parse(&message.event, message.payload) {
            Ok(message) => Some(PortalInput::Message(message)),
            Err(error) => {
                tracing::warn!(%error, "Ignoring a message of the portal");
                None
            }
        },
        Event::Hiccup { delay, error, .. } => {
            tracing::info!(retry_in = ?delay, %error, "No connection to the portal");
            Some(PortalInput::Disconnected)
        }
        Event::Closed => Some(PortalInput::Disconnected),
    }
}

fn login_parameters(key: PublicKey) -> Vec<(String, String)> {
    vec![("public_key".to_owned(), BASE64_STANDARD.encode(key.0))]
}

/// Looks the portal's name up by the system's resolver and remembers the last answer, since the resolver may be what
/// the tunnel has just taken away.
fn remembering_resolver() -> Resolver {
    let system = system_resolver();
    let last = Arc::new(Mutex::new(Vec::<IpAddr>::new()));
    Arc::new(move |host: String| {
        let last = Arc::clone(&last);
        let lookup = system(host);
        Box::pin(async move {
            let found = lookup.await;
            let mut last = last.lock().map_err(|_| io::ErrorKind::Other)?;
            match found {
                Ok(addresses) if !addresses.is_empty() => *last = addresses,
                Ok(_) | Err(_) if !last.is_empty() => {
                    tracing::debug!("The portal's name does not resolve; using its last addresses");
                }
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            Ok(last.clone())
        })
    })
}

/// The channel settings that keep the portal connection out of the tunnel.
pub(crate) fn bypassing(mut options: Options) -> Options {
    options.sockets = Arc::new(connlib_platform::tcp_socket);
    options.resolver = remembering_resolver();
    options
}
