//! What comes before a shred: holds, and shreds that are scheduled.

use crate::error::{Error, InputFault, KeyFault, Result};
use crate::event::{microseconds, now};
use crate::keys::change::Changing;
use crate::keys::hold::{FailedScope, HoldPage, SchedulePage};
use crate::keys::log::Fold;
use crate::keys::manager::{KeyManager, check_change};
use crate::keys::names::KeyScope;
use crate::keys::operator::Cause;
use crate::keys::{DueScope, Hold, KeyStore, KeyTable, Schedule, ScopeAction, ScopeState, ShredMode};
use crate::telemetry;
use time::OffsetDateTime;

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Puts a scope on hold: it can't be shredded while the hold is in force, neither at once nor when a schedule comes
    /// due. Appends and reads go on. A scope may have several holds, and one that has no keys yet may be held.
    ///
    /// The hold ends at `until`, or when it is [released](Self::release). It takes effect when the caller commits. A
    /// shred that waits for the same scope meanwhile then fails.
    ///
    /// ```
    /// # use eventseal::{KeyScope, Result};
    /// # use eventseal::keys::KeyManager;
    /// # async fn hold<C: Send + 'static>(keys: &KeyManager<C>, tx: &mut C) -> Result<()> {
    /// let customer = KeyScope::new("Customer", "cust_42");
    /// let hold = keys.acting_as("clerk 7").hold(tx, &customer, "case 12/2026", None).await?;
    /// // … and when the case is closed:
    /// keys.acting_as("clerk 7").release(tx, &hold, "case 12/2026 closed").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InputFault::Time`] if `until` has passed, [`KeyFault::ScopeState`] if the scope is shredded already, and those
    /// of [`shred`](Self::shred).
    pub async fn hold(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        reason: &str,
        until: Option<OffsetDateTime>,
    ) -> Result<Hold> {
        self.hold_because(tx, scope, Cause::of(reason), until).await
    }

    /// Releases a hold before it ends by itself. [`holds_of`](Self::holds_of) finds the holds of a scope.
    ///
    /// # Errors
    /// [`KeyFault::ScopeState`] if the scope has no such hold, or it was released before; those of
    /// [`shred`](Self::shred).
    pub async fn release(&self, tx: &mut Tx, hold: &Hold, reason: &str) -> Result<()> {
        self.release_because(tx, hold, Cause::of(reason)).await
    }

    /// The holds of a scope that are in force, oldest first. They are read from its entries in the shred log, which are
    /// checked.
    ///
    /// # Errors
    /// [`KeyFault::LogAltered`], [`Error::Database`]; errors of the KMS if the integrity key is not cached.
    pub async fn holds_of(&self, tx: &mut Tx, scope: &KeyScope) -> Result<Vec<Hold>> {
        let found = self.fold_of(tx, scope).await?;
        Ok(found.map(|(_, fold)| fold.holds_at(now())).unwrap_or_default())
    }

    /// Schedules a shred: it is due at a time, and is done by the first [sweep](Self::sweep) from then on. Until
    /// then it can be [cancelled](Self::cancel). `mode` says what happens to appends and reads meanwhile.
    ///
    /// # Errors
    /// [`InputFault::Time`] if the time has passed; [`KeyFault::ScopeState`] if the scope is shredded, has no keys, or
    /// has a schedule already, or if it is disabled and `mode` would change that; those of [`shred`](Self::shred).
    pub async fn schedule_shred(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        due: OffsetDateTime,
        mode: ShredMode,
        reason: &str,
    ) -> Result<Schedule> {
        self.schedule_because(tx, scope, due, mode, Cause::of(reason)).await
    }

    /// Cancels the scheduled shred of a scope. If the schedule disabled or redacted the scope, and nothing else has
    /// changed it since, it is usable again.
    ///
    /// # Errors
    /// [`KeyFault::ScopeState`] if nothing is scheduled, and those of [`shred`](Self::shred).
    pub async fn cancel(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<()> {
        self.cancel_because(tx, scope, Cause::of(reason)).await
    }

    /// The scheduled shred of a scope; `None` if nothing is scheduled. It is read from its entries in the shred log,
    /// which are checked.
    ///
    /// # Errors
    /// Those of [`holds_of`](Self::holds_of).
    pub async fn schedule_of(&self, tx: &mut Tx, scope: &KeyScope) -> Result<Option<Schedule>> {
        Ok(self.fold_of(tx, scope).await?.and_then(|(_, fold)| fold.schedule))
    }

    pub(crate) async fn hold_because(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        cause: Cause<'_>,
        until: Option<OffsetDateTime>,
    ) -> Result<Hold> {
        let call = telemetry::hold(self.known_namespace(), scope);
        call.run(|| self.hold_scope(tx, scope, cause, until)).await
    }

    async fn hold_scope(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        cause: Cause<'_>,
        until: Option<OffsetDateTime>,
    ) -> Result<Hold> {
        check_change(scope, cause)?;
        let until = until.map(|until| in_future("the end of the hold", until)).transpose()?;
        let pinned = self.open_log_ahead(tx).await?;
        let changing = self.begin_change(tx, scope, true, &pinned).await?;
        check_not_shredded(&changing, "is shredded: nothing is left to be held")?;
        changing.check_agreement()?;
        let mut decision = changing.decide(ScopeAction::Hold);
        decision.until = until;
        let entry = self.decide(tx, &changing, decision, cause, "holding").await?;
        Ok(Hold {
            id: entry.entry_id,
            scope: entry.scope,
            reason: entry.reason,
            actor: entry.actor,
            since: entry.at,
            until,
        })
    }

    pub(crate) async fn release_because(&self, tx: &mut Tx, hold: &Hold, cause: Cause<'_>) -> Result<()> {
        let call = telemetry::release(self.known_namespace(), &hold.scope);
        call.run(|| self.release_hold(tx, hold, cause)).await
    }

    async fn release_hold(&self, tx: &mut Tx, hold: &Hold, cause: Cause<'_>) -> Result<()> {
        check_change(&hold.scope, cause)?;
        let pinned = self.open_log_ahead(tx).await?;
        let changing = self.begin_change(tx, &hold.scope, false, &pinned).await?;
        if !changing.fold.holds.iter().any(|known| known.id == hold.id) {
            return Err(refused(&changing, "has no such hold: it was released before, or is one of another scope"));
        }
        changing.check_agreement()?;
        let mut decision = changing.decide(ScopeAction::Release);
        decision.about = Some(hold.id);
        self.decide(tx, &changing, decision, cause, "releasing a hold").await.map(drop)
    }

    pub(crate) async fn schedule_because(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        due: OffsetDateTime,
        mode: ShredMode,
        cause: Cause<'_>,
    ) -> Result<Schedule> {
        let call = telemetry::schedule_shred(self.known_namespace(), scope);
        call.run(|| self.schedule_scope(tx, scope, due, mode, cause)).await
    }

    async fn schedule_scope(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        due: OffsetDateTime,
        mode: ShredMode,
        cause: Cause<'_>,
    ) -> Result<Schedule> {
        check_change(scope, cause)?;
        let due = in_future("the time of the shred", due)?;
        let pinned = self.open_log_ahead(tx).await?;
        let changing = self.begin_change(tx, scope, false, &pinned).await?;
        check_not_shredded(&changing, "is shredded already: nothing is left to be scheduled")?;
        changing.check_agreement()?;
        if changing.fold.schedule.is_some() {
            return Err(refused(&changing, "has a scheduled shred already: cancel it first"));
        }
        let state = match (mode, changing.record.state) {
            (ShredMode::KeepWorking, state) => state,
            (ShredMode::Disable, ScopeState::Live) => ScopeState::Disabled,
            (ShredMode::Redact, ScopeState::Live) => ScopeState::Withheld,
            _ => {
                return Err(refused(
                    &changing,
                    "is disabled: enable it first, or schedule with ShredMode::KeepWorking",
                ));
            }
        };
        let mut decision = changing.decide(ScopeAction::Schedule);
        (decision.state, decision.until) = (state, Some(due));
        let entry = self.decide(tx, &changing, decision, cause, "scheduling a shred").await?;
        self.cache.keys.change(scope, state != ScopeState::Live, self.read_lag);
        Ok(Schedule {
            id: entry.entry_id,
            scope: entry.scope,
            due,
            mode,
            reason: entry.reason,
            actor: entry.actor,
            since: entry.at,
        })
    }

    pub(crate) async fn cancel_because(&self, tx: &mut Tx, scope: &KeyScope, cause: Cause<'_>) -> Result<()> {
        telemetry::cancel(self.known_namespace(), scope).run(|| self.cancel_schedule(tx, scope, cause)).await
    }

    async fn cancel_schedule(&self, tx: &mut Tx, scope: &KeyScope, cause: Cause<'_>) -> Result<()> {
        check_change(scope, cause)?;
        let pinned = self.open_log_ahead(tx).await?;
        let changing = self.begin_change(tx, scope, false, &pinned).await?;
        let Some(schedule) = &changing.fold.schedule else {
            return Err(refused(&changing, "has no scheduled shred"));
        };
        changing.check_agreement()?;
        let mut decision = changing.decide(ScopeAction::Cancel);
        decision.about = Some(schedule.id);
        decision.state = changing.fold.before_schedule.unwrap_or(decision.state);
        let state = decision.state;
        self.decide(tx, &changing, decision, cause, "cancelling a scheduled shred").await?;
        self.cache.keys.change(scope, state != ScopeState::Live, self.read_lag);
        Ok(())
    }
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// The holds that are in force, by scope: of the first `limit` scopes after `after` that were ever held. They are
    /// read from the entries of the shred log, which are checked.
    ///
    /// ```
    /// # use eventseal::Result;
    /// # use eventseal::keys::KeyManager;
    /// # async fn print<C: Send + 'static>(keys: &KeyManager<C>, tx: &mut C) -> Result<()> {
    /// let mut after = None;
    /// loop {
    ///     let page = keys.holds(tx, after.as_ref(), 100).await?;
    ///     for hold in &page.holds {
    ///         println!("{}: {hold}, {}", hold.scope, hold.reason);
    ///     }
    ///     let Some(next) = page.next else { break };
    ///     after = Some(next);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Database`]; errors of the KMS if the integrity key is not cached. A scope whose entries are not as they
    /// were written is in [`HoldPage::failed`].
    pub async fn holds(&self, tx: &mut Tx, after: Option<&KeyScope>, limit: u32) -> Result<HoldPage> {
        let limit = limit.max(1);
        let scopes = self.store.held_scopes(tx, after, limit).await?;
        let is_last = (scopes.len() as u64) < u64::from(limit);
        let mut page = HoldPage { holds: Vec::new(), failed: Vec::new(), next: None };
        for scope in &scopes {
            match self.holds_of(tx, scope).await {
                Ok(holds) => page.holds.extend(holds),
                Err(error) => page.failed.push(of_scope(scope, error)?),
            }
        }
        page.next = if is_last { None } else { scopes.into_iter().next_back() };
        Ok(page)
    }

    /// The scheduled shreds, in the order in which they come due: the first `limit` after `after`. They are read from
    /// the entries of the shred log, which are checked.
    ///
    /// # Errors
    /// [`Error::Database`]; errors of the KMS if the integrity key is not cached. A scope whose row and entries do not
    /// agree is in [`SchedulePage::failed`].
    pub async fn schedules(&self, tx: &mut Tx, after: Option<&DueScope>, limit: u32) -> Result<SchedulePage> {
        let limit = limit.max(1);
        let scopes = self.store.due_scopes(tx, None, after, limit).await?;
        let is_last = (scopes.len() as u64) < u64::from(limit);
        let mut page = SchedulePage { schedules: Vec::new(), failed: Vec::new(), next: None };
        for DueScope { scope, .. } in &scopes {
            match self.fold_of(tx, scope).await {
                Ok(Some((_, Fold { schedule: Some(schedule), .. }))) => page.schedules.push(schedule),
                Ok(Some((history, _))) if history.due.is_some() => {
                    let problem = "is due by its row, though no entry of the shred log schedules a shred";
                    let error = Error::Keys(KeyFault::ScopeState { scope: scope.clone(), problem });
                    page.failed.push(of_scope(scope, error)?);
                }
                // It was cancelled or shredded meanwhile.
                Ok(_) => {}
                Err(error) => page.failed.push(of_scope(scope, error)?),
            }
        }
        page.next = if is_last { None } else { scopes.into_iter().next_back() };
        Ok(page)
    }
}

/// An error that concerns one scope; others fail the call.
fn of_scope(scope: &KeyScope, error: Error) -> Result<FailedScope> {
    match error {
        Error::Keys(_) | Error::Storage(_) => Ok(FailedScope { scope: scope.clone(), error }),
        error => Err(error),
    }
}

fn refused(changing: &Changing, problem: &'static str) -> Error {
    Error::Keys(KeyFault::ScopeState { scope: changing.record.scope.clone(), problem })
}

fn check_not_shredded(changing: &Changing, problem: &'static str) -> Result<()> {
    if changing.record.state == ScopeState::Shredded || changing.fold.state == ScopeState::Shredded {
        return Err(refused(changing, problem));
    }
    Ok(())
}

/// A time that has not passed, as databases keep it.
fn in_future(what: &'static str, at: OffsetDateTime) -> Result<OffsetDateTime> {
    let kept = at.checked_to_offset(time::UtcOffset::UTC).map(microseconds);
    let kept = kept.filter(|at| (0..=9999).contains(&at.year()) && *at > now());
    kept.ok_or(Error::Input(InputFault::Time { what, at }))
}
