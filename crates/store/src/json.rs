//! Types on top of bytes.

use crate::{Error, Expected, Result, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Values as JSON, for every [`Store`].
pub trait StoreJson: Store {
    /// The value and its generation.
    fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, u64)>> {
        let entry = self.get(key)?;
        entry
            .map(|entry| Ok((read(key, &entry.value)?, entry.generation)))
            .transpose()
    }

    /// Keys, values and generations, sorted by key.
    fn list_json<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(String, T, u64)>> {
        let entries = self.list(prefix)?.into_iter();
        entries
            .map(|(key, entry)| {
                let value = read(&key, &entry.value)?;
                Ok((key, value, entry.generation))
            })
            .collect()
    }

    fn put_json<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        expected: Expected,
    ) -> Result<u64> {
        let value = serde_json::to_vec(value).map_err(|source| Error::Value {
            key: key.to_owned(),
            source,
        })?;
        self.put(key, &value, expected)
    }
}

impl<S: Store + ?Sized> StoreJson for S {}

fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|source| Error::Value {
        key: key.to_owned(),
        source,
    })
}
