//! Is a site reachable? (tunnel spec 3.15)
//!
//! Status belongs to the *site*; a resource shows the best of its sites. `Online` is what a connection proves, `Offline`
//! what the portal says when no gateway of the site is there. An `Offline` is an observation that ages: nobody tells us
//! when a gateway comes back, so it decays to `Unknown` by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use connlib_model::{ResourceStatus, Site, SiteId};

/// How long the portal's "no gateway is online" is believed.
const OFFLINE_DECAY: Duration = Duration::from_secs(5 * 60);

/// Sites whose status is known; all others are [`ResourceStatus::Unknown`].
#[derive(Debug, Default)]
pub(crate) struct Sites {
    known: BTreeMap<SiteId, Status>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Online,
    Offline { until: Instant },
}

impl Sites {
    /// A gateway of the site is connected.
    pub(crate) fn set_online(&mut self, site: SiteId) {
        self.known.insert(site, Status::Online);
    }

    /// The portal has no gateway for the site.
    pub(crate) fn set_offline(&mut self, site: SiteId, now: Instant) {
        self.known.insert(
            site,
            Status::Offline {
                until: now + OFFLINE_DECAY,
            },
        );
    }

    /// The last connection to the site is gone.
    pub(crate) fn set_unknown(&mut self, site: SiteId) {
        self.known.remove(&site);
    }

    /// The status of a resource that can be reached in any of `sites`.
    pub(crate) fn status_of(&self, sites: &[Site]) -> ResourceStatus {
        ResourceStatus::of_sites(sites.iter().map(|site| match self.known.get(&site.id) {
            Some(Status::Online) => ResourceStatus::Online,
            Some(Status::Offline { .. }) => ResourceStatus::Offline,
            None => ResourceStatus::Unknown,
        }))
    }

    /// Lets old observations decay. Returns whether any status changed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let before = self.known.len();
        self.known
            .retain(|_, status| !matches!(status, Status::Offline { until } if *until <= now));

        self.known.len() != before
    }

    /// When the next observation decays.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.known
            .values()
            .filter_map(|status| match status {
                Status::Online => None,
                Status::Offline { until } => Some(*until),
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // tunnel 66
    #[test]
    fn tunnel_66_any_online_site_makes_the_resource_online() {
        let (mut sites, now) = (Sites::default(), Instant::now());
        let two = [site(1), site(2)];
        sites.set_offline(SiteId::from_u128(1), now);
        assert_eq!(sites.status_of(&two), ResourceStatus::Unknown);
        sites.set_offline(SiteId::from_u128(2), now);
        assert_eq!(sites.status_of(&two), ResourceStatus::Offline);
        sites.set_online(SiteId::from_u128(2));
        assert_eq!(sites.status_of(&two), ResourceStatus::Online);
        sites.set_unknown(SiteId::from_u128(2));
        assert_eq!(sites.status_of(&two), ResourceStatus::Unknown);
    }

    // tunnel 66
    #[test]
    fn tunnel_66_resource_without_sites_is_unknown() {
        assert_eq!(Sites::default().status_of(&[]), ResourceStatus::Unknown);
    }

    // tunnel 66
    #[test]
    fn tunnel_66_offline_decays_at_exactly_five_minutes() {
        let (mut sites, now) = (Sites::default(), Instant::now());
        sites.set_offline(SiteId::from_u128(1), now);
        let deadline = sites.poll_timeout().expect("a deadline is exposed");
        assert_eq!(deadline, now + Duration::from_secs(300));

        assert!(!sites.handle_timeout(deadline - Duration::from_nanos(1)));
        assert_eq!(sites.status_of(&[site(1)]), ResourceStatus::Offline);
        assert!(sites.handle_timeout(deadline));
        assert_eq!(sites.status_of(&[site(1)]), ResourceStatus::Unknown);
        assert_eq!(sites.poll_timeout(), None);
    }

    fn site(id: u128) -> Site {
        Site {
            id: SiteId::from_u128(id),
            name: format!("site {id}"),
        }
    }
}
