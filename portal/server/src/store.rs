//! Records that survive a restart, in SQLite: devices with their addresses and secrets, and authorizations in force.

use std::{fs, path::Path};

use connlib_messages::Key;
use connlib_model::{ClientId, GatewayId, ResourceId, SiteId};
use portal_core::{
    Authorization, Device, Owner, StoreOp, Stored,
    config::{PersonId, PolicyId},
};
use rusqlite::{Connection, Row, ToSql, params, types::Type};
use uuid::Uuid;

use crate::config_file::Database;

/// Version of the tables below, kept in SQLite's `user_version`.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    CREATE TABLE device (
        id BLOB PRIMARY KEY,
        owner_kind TEXT NOT NULL CHECK (owner_kind IN ('person', 'site')),
        owner BLOB NOT NULL,
        external_id TEXT NOT NULL,
        name TEXT NOT NULL,
        ipv4 TEXT NOT NULL UNIQUE,
        ipv6 TEXT NOT NULL UNIQUE,
        psk_base BLOB NOT NULL,
        public_key BLOB NOT NULL,
        last_seen INTEGER NOT NULL,
        UNIQUE (owner_kind, owner, external_id)
    ) STRICT;
    CREATE TABLE authorization (
        gateway BLOB NOT NULL,
        client BLOB NOT NULL,
        resource BLOB NOT NULL,
        flow_id BLOB NOT NULL,
        policy BLOB NOT NULL,
        token TEXT NOT NULL,
        basis TEXT NOT NULL,
        expires_at INTEGER,
        PRIMARY KEY (gateway, client, resource)
    ) STRICT;
";

/// The records.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

/// The records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file's directory cannot be made.
    #[error(
        "cannot create the directory of the database: {0}. Set `database` in [server] to a place that can be written."
    )]
    Directory(#[from] std::io::Error),
    /// SQLite says no.
    #[error(
        "database: {0}. Set `database` in [server] to a place that can be written, or to \":memory:\"."
    )]
    Sqlite(#[from] rusqlite::Error),
    /// Made by a newer program.
    #[error(
        "the database has version {0}, this program knows {SCHEMA_VERSION}. Use the program that wrote it, or another file."
    )]
    Newer(i64),
}

impl Store {
    /// Opens or creates the records.
    ///
    /// # Errors
    ///
    /// When the place cannot be written, or was written by a newer program.
    pub fn open(database: &Database) -> Result<Self, StoreError> {
        let connection = match database {
            Database::Memory => Connection::open_in_memory()?,
            Database::File(path) => open_file(path)?,
        };
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => connection.execute_batch(&format!(
                "BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            ))?,
            SCHEMA_VERSION => {}
            newer => return Err(StoreError::Newer(newer)),
        }
        Ok(Self { connection })
    }

    /// Reads everything. `signing_key` is kept if there is none yet.
    ///
    /// # Errors
    ///
    /// When SQLite fails or holds something that was not written by this program.
    pub fn load(&self, signing_key: [u8; 32]) -> Result<Stored, StoreError> {
        let insert = "INSERT OR IGNORE INTO secret VALUES ('signing_key', ?1)";
        self.connection.execute(insert, params![signing_key])?;
        let select = "SELECT value FROM secret WHERE name = 'signing_key'";
        let signing_key = self.connection.query_row(select, [], |row| row.get(0))?;
        Ok(Stored {
            devices: self.all("SELECT * FROM device", read_device)?,
            authorizations: self.all("SELECT * FROM authorization", read_authorization)?,
            signing_key,
        })
    }

    /// Makes one change.
    ///
    /// # Errors
    ///
    /// When SQLite fails, for example on a full disk.
    pub fn apply(&self, op: &StoreOp) -> Result<(), StoreError> {
        match op {
            StoreOp::PutDevice(device) => self.put_device(device),
            StoreOp::PutAuthorization(entry) => self.put_authorization(entry),
            StoreOp::RemoveAuthorization {
                gateway,
                client,
                resource,
            } => self.execute(
                "DELETE FROM authorization WHERE gateway = ?1 AND client = ?2 AND resource = ?3",
                params![
                    gateway.uuid().as_bytes(),
                    client.uuid().as_bytes(),
                    resource.uuid().as_bytes()
                ],
            ),
        }
    }

    fn put_device(&self, device: &Device) -> Result<(), StoreError> {
        let (kind, owner) = match device.owner {
            Owner::Person(PersonId(id)) => ("person", id),
            Owner::Site(id) => ("site", id.uuid()),
        };
        self.execute(
            "INSERT OR REPLACE INTO device VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                device.id.as_bytes(),
                kind,
                owner.as_bytes(),
                device.external_id,
                device.name,
                device.ipv4.to_string(),
                device.ipv6.to_string(),
                device.psk_base,
                device.public_key.0,
                device.last_seen as i64,
            ],
        )
    }

    fn put_authorization(&self, entry: &Authorization) -> Result<(), StoreError> {
        self.execute(
            "INSERT OR REPLACE INTO authorization VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                entry.gateway.uuid().as_bytes(),
                entry.client.uuid().as_bytes(),
                entry.resource.uuid().as_bytes(),
                entry.flow_id.as_bytes(),
                entry.policy.0.as_bytes(),
                entry.token.to_string(),
                entry.basis.to_string(),
                entry.expires_at.map(|end| end as i64),
            ],
        )
    }

    fn execute(&self, sql: &str, values: &[&dyn ToSql]) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.execute(values)?;
        Ok(())
    }

    fn all<T>(
        &self,
        sql: &str,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn open_file(path: &Path) -> Result<Connection, StoreError> {
    if let Some(directory) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let connection = Connection::open(path)?;
    // A write-ahead log makes a commit a plain append; what the last moment before a power cut loses is made again.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

fn read_device(row: &Row<'_>) -> rusqlite::Result<Device> {
    let owner = uuid(row, "owner")?;
    let owner = match row.get_ref("owner_kind")?.as_str()? {
        "person" => Owner::Person(PersonId(owner)),
        _ => Owner::Site(SiteId::new(owner)),
    };
    Ok(Device {
        id: uuid(row, "id")?,
        owner,
        external_id: row.get("external_id")?,
        name: row.get("name")?,
        ipv4: parsed(row, "ipv4")?,
        ipv6: parsed(row, "ipv6")?,
        psk_base: row.get("psk_base")?,
        public_key: Key(row.get("public_key")?),
        last_seen: row.get::<_, i64>("last_seen")?.max(0) as u64,
    })
}

fn read_authorization(row: &Row<'_>) -> rusqlite::Result<Authorization> {
    let expires_at: Option<i64> = row.get("expires_at")?;
    Ok(Authorization {
        gateway: GatewayId::new(uuid(row, "gateway")?),
        client: ClientId::new(uuid(row, "client")?),
        resource: ResourceId::new(uuid(row, "resource")?),
        flow_id: uuid(row, "flow_id")?,
        policy: PolicyId(uuid(row, "policy")?),
        token: parsed(row, "token")?,
        basis: parsed(row, "basis")?,
        expires_at: expires_at.map(|end| end.max(0) as u64),
    })
}

fn uuid(row: &Row<'_>, column: &str) -> rusqlite::Result<Uuid> {
    Ok(Uuid::from_bytes(row.get(column)?))
}

fn parsed<T: std::str::FromStr>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let index = row.as_ref().column_index(column)?;
    let text: String = row.get(index)?;
    text.parse().map_err(|_| {
        rusqlite::Error::FromSqlConversionFailure(index, Type::Text, "not readable".into())
    })
}

#[cfg(test)]
mod tests {
    use portal_core::token::TokenHash;

    use super::*;

    fn device(id: u128, owner: Owner) -> Device {
        Device {
            id: Uuid::from_u128(id),
            owner,
            external_id: format!("external {id}"),
            name: "laptop".to_owned(),
            ipv4: std::net::Ipv4Addr::from(0x6440_0000 + id as u32),
            ipv6: std::net::Ipv6Addr::from(id),
            psk_base: [7; 32],
            public_key: Key([id as u8; 32]),
            last_seen: 5,
        }
    }

    fn authorization() -> Authorization {
        Authorization {
            gateway: GatewayId::from_u128(2),
            client: ClientId::from_u128(1),
            resource: ResourceId::from_u128(3),
            flow_id: Uuid::from_u128(4),
            policy: PolicyId(Uuid::from_u128(5)),
            token: TokenHash::of("token"),
            basis: "00000000000000ff".parse().unwrap(),
            expires_at: Some(99),
        }
    }

    #[test]
    fn records_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::File(directory.path().join("sub/portal.sqlite"));
        let person = device(1, Owner::Person(PersonId(Uuid::from_u128(8))));
        let site = device(2, Owner::Site(SiteId::from_u128(9)));
        {
            let store = Store::open(&database).unwrap();
            assert_eq!(store.load([1; 32]).unwrap().signing_key, [1; 32]);
            for op in [
                StoreOp::PutDevice(person.clone()),
                StoreOp::PutDevice(site.clone()),
                StoreOp::PutAuthorization(authorization()),
            ] {
                store.apply(&op).unwrap();
            }
        }
        let store = Store::open(&database).unwrap();
        let stored = store.load([2; 32]).unwrap();
        assert_eq!(stored.signing_key, [1; 32]);
        assert_eq!(stored.devices, [person.clone(), site]);
        assert_eq!(stored.authorizations, [authorization()]);

        let renamed = Device {
            name: "other".to_owned(),
            ..person
        };
        store.apply(&StoreOp::PutDevice(renamed.clone())).unwrap();
        let (gateway, client, resource) = {
            let entry = authorization();
            (entry.gateway, entry.client, entry.resource)
        };
        let remove = StoreOp::RemoveAuthorization {
            gateway,
            client,
            resource,
        };
        store.apply(&remove).unwrap();
        let stored = store.load([2; 32]).unwrap();
        assert!(stored.devices.contains(&renamed));
        assert!(stored.authorizations.is_empty());
    }

    #[test]
    fn a_newer_database_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("portal.sqlite");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let error = Store::open(&Database::File(path)).unwrap_err();
        assert!(matches!(error, StoreError::Newer(99)));
    }
}
