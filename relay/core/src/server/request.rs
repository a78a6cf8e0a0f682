//! STUN messages on the listen port: which are answered, by whom, and with which signature (relay spec §2.1, §2.9).

use std::time::Instant;

use connlib_stun::{
    Class, Envelope, EnvelopeError, ErrorCode, ErrorResponse, Header, Key, Outcome, Request,
    RequestBody, Response, Success,
};

use crate::{
    address::ClientSocket,
    limit::Verdict,
    server::{Command, Forwarder, Server, auth::User, data::Tally},
};

/// What comes of an authenticated request.
pub(super) type Answer = Result<Success, ErrorResponse>;

/// An answer that may have to wait for sockets.
pub(super) enum Progress {
    Answered(Answer),
    /// The answer follows when the sockets are bound.
    Waits,
}

impl Server {
    /// Handles one STUN message of a client.
    pub(super) fn handle_stun(
        &mut self,
        client: ClientSocket,
        datagram: &[u8],
        now: Instant,
        tally: &mut Tally,
        out: &mut impl Forwarder,
    ) {
        let envelope = match Envelope::parse(datagram) {
            Ok(envelope) => envelope,
            Err(EnvelopeError::Broken { header, flaw }) if header.class == Class::Request => {
                tracing::debug!(%client, %flaw, "Broken request");
                self.refuse_unsigned(client, header, ErrorCode::BAD_REQUEST, now);
                return;
            }
            Err(_) => {
                self.counters.drops.malformed += 1;
                return;
            }
        };
        match envelope.class() {
            Class::Request => self.handle_request(client, &envelope, now),
            Class::Indication => self.handle_indication(client, &envelope, now, tally, out),
            Class::Success | Class::Error => self.counters.drops.malformed += 1,
        }
    }

    fn handle_request(&mut self, client: ClientSocket, envelope: &Envelope<'_>, now: Instant) {
        let header = envelope.header();
        let request = match Request::decode(envelope) {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(%client, %error, "Undecodable request");
                self.refuse_unsigned(client, header, ErrorCode::BAD_REQUEST, now);
                return;
            }
        };
        if let RequestBody::Binding = request.body {
            self.handle_binding(client, envelope, &request, now);
            return;
        }
        if self.config.challenge_only_with_username && request.auth.username.is_none() {
            return;
        }
        match self.authenticate(envelope, &request.auth, client, now) {
            Ok(user) => self.handle_authenticated(client, envelope, request, user, now),
            Err(refusal) => {
                tracing::debug!(%client, method = ?header.method, error = %refusal.error.code, "Not authenticated");
                if !refusal.is_authentic && !self.may_refuse(client, now) {
                    return;
                }
                let response = Response::error(header, refusal.error);
                self.send(client, &response, refusal.key.as_ref());
            }
        }
    }

    /// Anybody is told their address. The only attribute read is SOFTWARE, for logs that follow roaming clients.
    fn handle_binding(
        &mut self,
        client: ClientSocket,
        envelope: &Envelope<'_>,
        request: &Request,
        now: Instant,
    ) {
        let unknown = envelope.unknown_required();
        if !unknown.is_empty() {
            if self.may_refuse(client, now) {
                let response = Response::error(envelope.header(), unknown_attributes(unknown));
                self.send(client, &response, None);
            }
            return;
        }
        if let Verdict::Exceeded { log } = self.bindings.take(client.ip(), now) {
            self.note_limited(client, log);
            return;
        }
        tracing::debug!(%client, software = request.software.as_deref(), "Binding");
        let success = Success::Binding {
            mapped: Some(client.address()),
        };
        self.answer(client, envelope.header(), Ok(success), None);
    }

    fn handle_authenticated(
        &mut self,
        client: ClientSocket,
        envelope: &Envelope<'_>,
        request: Request,
        user: User,
        now: Instant,
    ) {
        let header = envelope.header();
        let key = user.key.clone();
        let unknown = envelope.unknown_required();
        let answer = match request.body {
            RequestBody::Allocate(allocate) => {
                let transaction_id = request.transaction_id;
                let wish = super::allocate::Wish {
                    client,
                    transaction_id,
                    allocate,
                    unknown,
                    software: request.software,
                };
                match self.handle_allocate(wish, user, now) {
                    Progress::Answered(answer) => answer,
                    Progress::Waits => return,
                }
            }
            _ if !unknown.is_empty() => Err(unknown_attributes(unknown)),
            RequestBody::Refresh(refresh) => {
                self.handle_refresh(client, request.transaction_id, &refresh, &user, now)
            }
            RequestBody::ChannelBind(bind) => self.handle_channel_bind(client, &bind, now),
            RequestBody::CreatePermission(permission) => {
                self.handle_create_permission(client, &permission.peers, now)
            }
            // Answered before authentication.
            RequestBody::Binding => return,
        };
        self.answer(client, header, answer, Some(&key));
    }

    pub(super) fn answer(
        &mut self,
        client: ClientSocket,
        header: Header,
        answer: Answer,
        key: Option<&Key>,
    ) {
        let response = match answer {
            Ok(success) => Response {
                transaction_id: header.transaction_id,
                method: header.method,
                software: None,
                outcome: Outcome::Success(success),
            },
            Err(error) => {
                // Clients try every candidate of the other side, so this is everyday.
                tracing::debug!(%client, method = ?header.method, error = %error.code, "Request refused");
                Response::error(header, error)
            }
        };
        self.send(client, &response, key);
    }

    /// Refuses what cannot be attributed to a user.
    fn refuse_unsigned(
        &mut self,
        client: ClientSocket,
        header: Header,
        code: ErrorCode,
        now: Instant,
    ) {
        if self.may_refuse(client, now) {
            let response = Response::error(header, ErrorResponse::new(code));
            self.send(client, &response, None);
        }
    }

    /// Whether a request that anybody could have made may be refused, or is better left without a reply.
    fn may_refuse(&mut self, client: ClientSocket, now: Instant) -> bool {
        match self.refusals.take(client.ip(), now) {
            Verdict::Allowed => true,
            Verdict::Exceeded { log } => {
                self.note_limited(client, log);
                false
            }
        }
    }

    fn note_limited(&mut self, client: ClientSocket, log: bool) {
        self.counters.rate_limited += 1;
        if log {
            tracing::debug!(source = %client.ip(), "Too many requests; staying silent");
        }
    }

    fn send(&mut self, client: ClientSocket, response: &Response, key: Option<&Key>) {
        let code = match &response.outcome {
            Outcome::Success(_) => None,
            Outcome::Error(error) => Some(error.code.get()),
        };
        match response.encode(key) {
            Ok(bytes) => {
                self.counters.count_response(response.method, code);
                self.commands.push_back(Command::Send { to: client, bytes });
            }
            Err(error) => tracing::error!(%error, "A reply cannot be encoded"),
        }
    }
}

/// 420 with the list of what is not understood.
pub(super) fn unknown_attributes(unknown_attributes: Vec<u16>) -> ErrorResponse {
    ErrorResponse {
        unknown_attributes,
        ..ErrorResponse::new(ErrorCode::UNKNOWN_ATTRIBUTE)
    }
}
