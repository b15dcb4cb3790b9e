//! Verifies the key tables: key-encryption keys, scopes and data keys.

use crate::erasure::verify::findings::{Findings, FoundAt, VerifyFindingKind};
use crate::error::{Error, ErrorKind, KeyFault, Result};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{
    DataKeyRecord, DestroyedKey, KekState, KeyHistory, LogDisagreement, LogProblem, ScopeQuery, ScopeState,
};
use crate::sealed_store::SealedStore;
use crate::store::EventStore;
use std::collections::{HashMap, HashSet};

/// What the key tables came to.
#[derive(Default)]
pub(super) struct KeysVerified {
    pub(super) scopes: u64,
    pub(super) live_keys: u64,
    pub(super) destroyed_keys: u64,
    pub(super) keks: u64,
    /// What scopes and their entries disagree in.
    pub(super) disagreements: HashSet<LogDisagreement>,
}

impl KeysVerified {
    fn disagree(&mut self, scope: &KeyScope, problem: LogProblem) {
        self.disagreements.insert(LogDisagreement { scope: scope.clone(), problem });
    }
}

impl<S: EventStore> SealedStore<S> {
    /// Verifies every key-encryption key, and every scope with its data keys. `progress` gets the number of scopes.
    pub(super) async fn verify_keys(
        &self,
        connection: &mut S::Tx,
        findings: &mut Findings,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<KeysVerified> {
        self.keys().check_namespace(connection).await?;
        let mut verified = KeysVerified::default();
        self.verify_keks(connection, &mut verified, findings).await?;
        // The list of scopes leaves out the crate's own.
        self.verify_scopes(connection, &[KeyScope::index(), KeyScope::integrity()], &mut verified, findings).await?;
        let mut query = ScopeQuery { limit: 500, ..ScopeQuery::default() };
        loop {
            let page = self.keys().scopes(connection, &query).await?;
            let scopes: Vec<KeyScope> = page.scopes.into_iter().map(|listed| listed.scope).collect();
            verified.scopes += scopes.len() as u64;
            self.verify_scopes(connection, &scopes, &mut verified, findings).await?;
            progress(verified.scopes);
            query.after = page.next;
            if query.after.is_none() {
                return Ok(verified);
            }
        }
    }

    async fn verify_keks(
        &self,
        connection: &mut S::Tx,
        verified: &mut KeysVerified,
        findings: &mut Findings,
    ) -> Result<()> {
        for usage in self.keys().kek_usage(connection).await? {
            let kek = &usage.kek;
            let mut found = |problem: String| findings.add(VerifyFindingKind::Kek, FoundAt::Kek(kek.kek_id), problem);
            if kek.state == KekState::Retired && usage.live_keys > 0 {
                found(format!("it is retired, and wraps {} live data keys", usage.live_keys));
            }
            match self.keys().kek(kek).await {
                Ok(_) => verified.keks += 1,
                // Nobody needs a key that is retired and wraps nothing.
                Err(error) if error.kind() == ErrorKind::KmsRefused => {
                    if kek.state != KekState::Retired || usage.live_keys > 0 {
                        found(error.to_string());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn verify_scopes(
        &self,
        connection: &mut S::Tx,
        scopes: &[KeyScope],
        verified: &mut KeysVerified,
        findings: &mut Findings,
    ) -> Result<()> {
        let mut histories = Vec::with_capacity(scopes.len());
        for scope in scopes {
            histories.extend(self.entries_of(connection, scope, verified, findings).await?);
        }
        let ids: Vec<KeyId> = histories.iter().flat_map(|(history, _)| &history.keys).map(|key| key.key_id).collect();
        let rows = self.keys().store.data_keys(connection, &ids).await?;
        let opened = self.try_to_open(connection, &rows).await?;
        let rows: HashMap<KeyId, DataKeyRecord> = rows.into_iter().map(|row| (row.key_id, row)).collect();
        for (history, destroyed) in &histories {
            check_scope(history, &rows, findings);
            for row in history.keys.iter().filter_map(|key| rows.get(&key.key_id)) {
                let result = opened.get(&row.key_id);
                match (&row.wrapped_key, row.shredded_at) {
                    (None, Some(_)) => verified.destroyed_keys += 1,
                    (Some(_), None) if matches!(result, Some(Ok(()))) => verified.live_keys += 1,
                    _ => {}
                }
                let came_back = row.wrapped_key.is_some() && destroyed.iter().any(|key| key.key_id == row.key_id);
                let error = result.and_then(|result| result.as_ref().err());
                if came_back || (row.wrapped_key.is_some() && row.scope_state == ScopeState::Shredded) {
                    verified.disagree(&row.scope, LogProblem::KeyCameBack);
                }
                let fault = match came_back {
                    true => Some((VerifyFindingKind::NotErased, "the shred log says that it was destroyed".to_owned())),
                    false => fault_of(row, error),
                };
                if let Some((kind, problem)) = fault {
                    findings.add(kind, FoundAt::Key { key_id: row.key_id, scope: row.scope.clone() }, problem);
                }
            }
        }
        Ok(())
    }

    /// The history of a scope, with the keys that its authentic entries in the shred log destroyed. `None` if there is
    /// no such scope.
    ///
    /// The chain of the whole log, and its copy, are verified apart.
    async fn entries_of(
        &self,
        connection: &mut S::Tx,
        scope: &KeyScope,
        verified: &mut KeysVerified,
        findings: &mut Findings,
    ) -> Result<Option<(KeyHistory, Vec<DestroyedKey>)>> {
        let mut found =
            |problem: String| findings.add(VerifyFindingKind::ShredLog, FoundAt::Scope(scope.clone()), problem);
        match self.keys().fold_of(connection, scope).await {
            Ok(Some((history, fold))) => {
                if !scope.is_reserved() && (history.state, history.generation) != (fold.state, fold.generation) {
                    found("its row has another state or generation than its entries say".to_owned());
                    verified.disagree(scope, LogProblem::State);
                }
                Ok(Some((history, fold.destroyed)))
            }
            Ok(None) => Ok(None),
            // The integrity key does not open, which is a finding of its own.
            Err(error) if is_fault(&error) => {
                found(error.to_string());
                let history = self.keys().key_history(connection, scope).await?;
                Ok(history.map(|history| (history, Vec::new())))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the keys of these rows that are wrapped, whatever the state of their scopes is.
    async fn try_to_open(&self, connection: &mut S::Tx, rows: &[DataKeyRecord]) -> Result<HashMap<KeyId, Result<()>>> {
        let namespace = self.keys().namespace(connection).await?;
        let mut by_kek: HashMap<_, Vec<DataKeyRecord>> = HashMap::new();
        for row in rows.iter().filter(|row| row.wrapped_key.is_some()) {
            by_kek.entry(row.kek_id).or_default().push(row.clone());
        }
        let mut results = HashMap::with_capacity(rows.len());
        for rows in by_kek.into_values() {
            match self.keys().open_all(connection, &namespace, &rows, None, None).await {
                Ok(opened) => results.extend(opened.into_iter().map(|(key_id, key)| (key_id, key.map(drop)))),
                Err(error) if is_fault(&error) => {
                    results.extend(rows.iter().map(|row| (row.key_id, Err(error.clone()))));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    }
}

/// Is the error about what is stored, and not about the database or a KMS that does not answer?
pub(super) fn is_fault(error: &Error) -> bool {
    error.kind() == ErrorKind::KmsRefused || matches!(error, Error::Keys(_) | Error::Storage(_))
}

/// What is wrong with the row of a data key. `error` says why it does not open.
fn fault_of(row: &DataKeyRecord, error: Option<&Error>) -> Option<(VerifyFindingKind, String)> {
    let (kind, problem) = match (&row.wrapped_key, row.shredded_at, error) {
        (None, Some(_), _) => return None,
        (None, None, _) => {
            (VerifyFindingKind::DataKey, "it has no wrapped key, and was not shredded: it is lost".to_owned())
        }
        (Some(_), Some(_), _) => (VerifyFindingKind::NotErased, "it was shredded, and has a wrapped key".to_owned()),
        (Some(_), None, _) if row.scope_state == ScopeState::Shredded => {
            (VerifyFindingKind::NotErased, "it has a wrapped key, though its scope is shredded".to_owned())
        }
        (Some(_), None, None) => return None,
        (Some(_), None, Some(error @ (Error::Keys(KeyFault::MissingKek { .. }) | Error::Kms(_)))) => {
            (VerifyFindingKind::Kek, error.to_string())
        }
        (Some(_), None, Some(error)) => (VerifyFindingKind::DataKey, error.to_string()),
    };
    Some((kind, problem))
}

/// Do the row of a scope and its keys agree?
fn check_scope(history: &KeyHistory, rows: &HashMap<KeyId, DataKeyRecord>, findings: &mut Findings) {
    let mut found =
        |problem: &str| findings.add(VerifyFindingKind::Scope, FoundAt::Scope(history.scope.clone()), problem);
    let newest = history.keys.iter().max_by_key(|key| key.version);
    match (history.active_key, newest) {
        (None, _) => {
            // A scope may lose its keys to a shred, and get one with the next append after a reopen.
            let newest = newest.and_then(|key| rows.get(&key.key_id));
            if history.state != ScopeState::Shredded && newest.is_some_and(|row| row.wrapped_key.is_some()) {
                found("it has keys, and none of them is active");
            }
        }
        (Some(_), _) if history.state == ScopeState::Shredded => found("it is shredded, and has an active key"),
        (Some(active), Some(newest)) if newest.key_id == active => {
            if rows.get(&active).is_some_and(|row| row.wrapped_key.is_none()) {
                found("its active key is destroyed");
            }
        }
        (Some(active), _) if history.keys.iter().any(|key| key.key_id == active) => {
            found("its active key is not its newest");
        }
        (Some(_), _) => found("its active key is not one of its own"),
    }
    let mut versions: Vec<u32> = history.keys.iter().map(|key| key.version).collect();
    versions.sort_unstable();
    if versions.windows(2).any(|pair| pair[0] == pair[1]) {
        found("two of its keys have one version");
    }
}
