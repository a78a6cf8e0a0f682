//! Look-ups of a gateway: both families in parallel, by the host's resolver configuration (tunnel spec §5.7,
//! clients spec §7.3).

use std::{
    fs,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use connlib_model::DomainName;
use connlib_tunnel::ResolveError;
use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

/// Longest look-up. Stays below the time-out of a client's handshake (20 s).
const TIMEOUT: Duration = Duration::from_secs(10);
/// Look-ups in flight; more are dropped, since clients repeat theirs.
const MAX_IN_FLIGHT: usize = 1000;
/// Answers kept for their time to live.
const CACHE_ENTRIES: u64 = 512;
/// Whose change makes the resolver read its configuration anew.
const CONFIGURATION: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Runs look-ups until the queue closes. A name that does not exist yields no address, which is no error.
pub(crate) async fn serve<Id: Send + 'static>(
    mut names: mpsc::Receiver<(Id, DomainName)>,
    answer: impl Fn(Id, Result<Vec<IpAddr>, ResolveError>) + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    let permits = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut tasks = JoinSet::new();
    let mut configured = Configured::default();
    loop {
        let (id, name) = tokio::select! {
            name = names.recv() => match name {
                Some(name) => name,
                None => break,
            },
            Some(_) = tasks.join_next() => continue,
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::warn!("Too many DNS look-ups in flight; dropping one");
            continue;
        };
        let (answer, resolver) = (answer.clone(), configured.resolver());
        tasks.spawn(async move {
            let result = match resolver {
                Some(resolver) => resolve(&resolver, &name).await,
                None => Err(ResolveError::Failed),
            };
            drop(permit);
            answer(id, result);
        });
    }
}

async fn resolve(resolver: &TokioResolver, name: &DomainName) -> Result<Vec<IpAddr>, ResolveError> {
    // Fully qualified: the search list of the gateway's host is none of the client's business.
    let absolute = format!("{name}.");
    match tokio::time::timeout(TIMEOUT, resolver.lookup_ip(absolute)).await {
        Ok(Ok(found)) => Ok(found.iter().collect()),
        Ok(Err(error)) if error.is_no_records_found() || error.is_nx_domain() => Ok(Vec::new()),
        Ok(Err(error)) => {
            tracing::debug!(%name, %error, "Name does not resolve");
            Err(ResolveError::Failed)
        }
        Err(_) => Err(ResolveError::TimedOut),
    }
}

/// The resolver together with the age of what it was configured from.
#[derive(Default)]
struct Configured {
    read_from: [Option<SystemTime>; CONFIGURATION.len()],
    resolver: Option<TokioResolver>,
}

impl Configured {
    fn resolver(&mut self) -> Option<TokioResolver> {
        let modified = CONFIGURATION.map(|path| fs::metadata(path).ok()?.modified().ok());
        if self.resolver.is_none() || modified != self.read_from {
            self.read_from = modified;
            self.resolver = build();
        }
        self.resolver.clone()
    }
}

fn build() -> Option<TokioResolver> {
    let built = TokioResolver::builder_tokio().and_then(|mut builder| {
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Always;
        options.cache_size = CACHE_ENTRIES;
        builder.build()
    });
    built
        .inspect_err(|error| tracing::warn!(%error, "Cannot read the resolver configuration"))
        .ok()
}
