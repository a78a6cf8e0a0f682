//! Where a component is, as far as a load balancer in front of the portal says (portal protocol §7.4).

use crate::country;

/// A place.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Location {
    /// Country, ISO 3166-1 alpha-2, upper case.
    pub region: Option<String>,
    /// Latitude and longitude in degrees.
    pub coordinates: Option<Coordinates>,
}

/// A point on the globe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coordinates {
    /// Degrees north, −90 to 90.
    pub latitude: f64,
    /// Degrees east, −180 to 180.
    pub longitude: f64,
}

const EARTH_RADIUS_KM: f64 = 6371.0;

impl Location {
    /// Reads the header values `x-geo-location-region` and `x-geo-location-coordinates`; what cannot be read counts as
    /// absent. Without coordinates the middle of the country has to do.
    pub fn from_headers(region: Option<&str>, coordinates: Option<&str>) -> Self {
        let region = region.map(str::trim).filter(|text| text.len() == 2);
        let region = region.map(str::to_ascii_uppercase);
        let coordinates = coordinates.and_then(Coordinates::parse);
        Self {
            coordinates: coordinates.or_else(|| country::centre(region.as_deref()?)),
            region,
        }
    }
}

impl Coordinates {
    /// Reads `lat,lon`.
    pub fn parse(text: &str) -> Option<Self> {
        let (latitude, longitude) = text.split_once(',')?;
        let number = |text: &str, limit: f64| {
            let degrees: f64 = text.trim().parse().ok()?;
            (degrees.abs() <= limit).then_some(degrees)
        };
        Some(Self {
            latitude: number(latitude, 90.0)?,
            longitude: number(longitude, 180.0)?,
        })
    }

    /// Distance on the globe in kilometres (haversine), rounded so that it can be ordered and equal places are equal.
    pub fn distance_km(&self, other: &Self) -> u32 {
        let (lat1, lat2) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half_lat = (lat2 - lat1) / 2.0;
        let half_lon = (other.longitude - self.longitude).to_radians() / 2.0;
        let a = half_lat.sin().powi(2) + lat1.cos() * lat2.cos() * half_lon.sin().powi(2);
        (2.0 * EARTH_RADIUS_KM * a.sqrt().min(1.0).asin()).round() as u32
    }
}

/// Distance between two places; unknown is further than everything known.
pub(crate) fn distance(from: Coordinates, to: Option<Coordinates>) -> u32 {
    to.map_or(u32::MAX, |to| from.distance_km(&to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn berlin_to_paris() {
        let berlin = Coordinates::parse("52.52,13.405").unwrap();
        let paris = Coordinates::parse(" 48.8566 , 2.3522 ").unwrap();
        assert!((875..882).contains(&berlin.distance_km(&paris)));
        assert_eq!(berlin.distance_km(&berlin), 0);
        assert_eq!(distance(berlin, None), u32::MAX);
    }

    #[test]
    fn antipodes_are_half_the_circumference() {
        let a = Coordinates::parse("0,0").unwrap();
        let b = Coordinates::parse("0,180").unwrap();
        assert!((20_000..20_030).contains(&a.distance_km(&b)));
    }

    #[test]
    fn unreadable_headers_count_as_absent() {
        let location = Location::from_headers(Some("Germany"), Some("north"));
        assert_eq!(location, Location::default());
        for bad in ["", "1", "91,0", "0,181", "NaN,0", "a,b"] {
            assert_eq!(Coordinates::parse(bad), None, "{bad}");
        }
        let location = Location::from_headers(Some("de"), None);
        assert_eq!(location.region.as_deref(), Some("DE"));
        assert_eq!(location.coordinates, Coordinates::parse("51,9"));
        let exact = Location::from_headers(Some("DE"), Some("52.5,13.4"));
        assert_eq!(exact.coordinates, Coordinates::parse("52.5,13.4"));
    }
}
