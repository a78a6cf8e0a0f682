//! Who stands between the portal's channel and the data threads: nobody, or the dispatcher of a gateway's workers.

use std::num::NonZeroUsize;

use connlib_messages::{
    RELAY_USERS_PARAMETER,
    gateway::{FromPortal, ToPortal},
};
use connlib_session::{Delivery, Dispatcher, PortalInput, PortalOutput, WorkerInput};
use connlib_tunnel::PublicKey;

use crate::{
    gateway::{GatewayCommand, GatewayRole},
    portal::Desk,
    role::Role,
    start::Inbox,
    worker::{Input, Output},
};

/// The first data thread, there being no other, gets and says everything.
pub(crate) struct Alone<R: Role>(pub(crate) Vec<Inbox<R>>);

impl<R: Role> Desk for Alone<R> {
    type FromPortal = R::FromPortal;
    type ToPortal = R::ToPortal;

    async fn deliver(&mut self, input: PortalInput<R::FromPortal, R::ToPortal>) -> bool {
        self.0[0].send(Input::Portal(input)).await
    }

    async fn merge(&mut self, output: Output<R::ToPortal>) -> Option<PortalOutput<R::ToPortal>> {
        Some(output.output)
    }
}

/// The workers of a gateway, each with its share of the clients.
pub(crate) struct Shared {
    dispatcher: Dispatcher,
    inboxes: Vec<Inbox<GatewayRole>>,
}

impl Shared {
    /// For these workers, which all have this key.
    pub(crate) fn new(inboxes: Vec<Inbox<GatewayRole>>, key: PublicKey) -> Self {
        let workers = NonZeroUsize::new(inboxes.len()).unwrap_or(NonZeroUsize::MIN);
        Self {
            dispatcher: Dispatcher::new(workers, key),
            inboxes,
        }
    }

    async fn hand_out(&self, deliveries: Vec<Delivery>) -> bool {
        let mut is_anybody_there = deliveries.is_empty();
        for Delivery { worker, input } in deliveries {
            let input = match input {
                WorkerInput::Portal(input) => Input::Portal(input),
                WorkerInput::Owner { addresses, worker } => {
                    Input::Command(GatewayCommand::Owner { addresses, worker })
                }
            };
            is_anybody_there |= self.inboxes[worker].send(input).await;
        }
        is_anybody_there
    }
}

impl Desk for Shared {
    type FromPortal = FromPortal;
    type ToPortal = ToPortal;

    fn login_parameters(&self) -> Vec<(String, String)> {
        let users = self.inboxes.len().to_string();
        vec![(RELAY_USERS_PARAMETER.to_owned(), users)]
    }

    async fn deliver(&mut self, input: PortalInput<FromPortal, ToPortal>) -> bool {
        let deliveries = self.dispatcher.handle_portal(input);
        self.hand_out(deliveries).await
    }

    async fn merge(&mut self, output: Output<ToPortal>) -> Option<PortalOutput<ToPortal>> {
        let Output {
            worker,
            known,
            output,
        } = output;
        let (output, deliveries) = self.dispatcher.handle_output(worker, known, output);
        self.hand_out(deliveries).await;
        output
    }
}

/// The desk of a gateway.
pub(crate) enum GatewayDesk {
    Alone(Alone<GatewayRole>),
    Shared(Shared),
}

impl Desk for GatewayDesk {
    type FromPortal = FromPortal;
    type ToPortal = ToPortal;

    fn login_parameters(&self) -> Vec<(String, String)> {
        match self {
            Self::Alone(desk) => desk.login_parameters(),
            Self::Shared(desk) => desk.login_parameters(),
        }
    }

    async fn deliver(&mut self, input: PortalInput<FromPortal, ToPortal>) -> bool {
        match self {
            Self::Alone(desk) => desk.deliver(input).await,
            Self::Shared(desk) => desk.deliver(input).await,
        }
    }

    async fn merge(&mut self, output: Output<ToPortal>) -> Option<PortalOutput<ToPortal>> {
        match self {
            Self::Alone(desk) => desk.merge(output).await,
            Self::Shared(desk) => desk.merge(output).await,
        }
    }
}
