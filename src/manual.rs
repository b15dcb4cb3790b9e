//! The guides, as pages of this documentation. They are the files of `docs` in the repository.
//!
//! - [`evolution`]: how to change payloads, from "another field is needed" to "the old step is gone".
//! - [`erasure`]: how to answer an erasure request, from letter to proof; restores; epochs.
//! - [`operations`]: how to set eventseal up, run it, and act in an emergency.
//! - [`scaling`]: beyond one machine: standbys, partitions, tenants, distributed databases; sizes.
//! - [`command_json`]: what the command prints with `--json`.
//! - [`format`](mod@format): the bytes that are stored, so precisely that a reader can be built from the page.

// The link targets between guides. The guides' own targets are files. The first definition of a name counts, so these
// come before.

#[doc = "[where-a-store-is-rewritten]: operations#rewrite-a-store\n"]
#[doc = include_str!("../docs/evolution.md")]
pub mod evolution {}

#[doc = "[grants]: operations#grants-on-postgresql\n"]
#[doc = "[copy-of-the-log]: operations#the-shred-log-and-its-copy\n"]
#[doc = "[failover]: scaling#after-a-failover\n"]
#[doc = "[another-key-in-aws]: operations#to-another-key-in-aws-kms\n"]
#[doc = include_str!("../docs/erasure.md")]
pub mod erasure {}

#[doc = "[json-of-the-command]: command_json\n"]
#[doc = "[erasure-guide]: erasure\n"]
#[doc = "[drill-after-a-restore]: erasure#after-a-restore\n"]
#[doc = "[epochs]: erasure#a-new-epoch\n"]
#[doc = "[scaling-guide]: scaling\n"]
#[doc = "[standbys-and-shreds]: scaling#what-a-shred-means-on-a-standby\n"]
#[doc = "[after-a-failover]: scaling#after-a-failover\n"]
#[doc = include_str!("../docs/operations.md")]
pub mod operations {}

#[doc = "[kms-costs]: operations#what-a-kms-costs\n"]
#[doc = "[copy-of-the-log]: operations#the-shred-log-and-its-copy\n"]
#[doc = "[horizon]: erasure#6-say-when-it-is-complete\n"]
#[doc = "[drill-after-a-restore]: erasure#after-a-restore\n"]
#[doc = include_str!("../docs/scaling.md")]
pub mod scaling {}

#[doc = include_str!("../docs/command-json.md")]
pub mod command_json {}

#[doc = include_str!("../docs/format.md")]
pub mod format {}
