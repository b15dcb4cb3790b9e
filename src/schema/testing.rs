//! What guards for CI need of a registry.

use crate::schema::Schemas;

impl Schemas {
    /// The same registry, in which old versions can be appended: a guard seals what was stored years ago.
    pub(crate) fn for_guards(mut self) -> Self {
        self.allow_older_appends = true;
        self
    }
}
