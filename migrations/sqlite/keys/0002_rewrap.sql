-- When the key that wraps a key now wrapped it; NULL: when it was made.
ALTER TABLE "{data_keys}" ADD COLUMN wrapped_at TEXT;
ALTER TABLE "{key_encryption_keys}" ADD COLUMN wrapped_at TEXT;

-- Rewrapping goes through the keys of a key-encryption key in the order of their ids.
DROP INDEX "{data_keys}_by_kek";
CREATE INDEX "{data_keys}_by_kek" ON "{data_keys}" (kek_id, key_id) WHERE state = 'live';

CREATE TRIGGER "{key_encryption_keys}_stay" BEFORE DELETE ON "{key_encryption_keys}"
BEGIN SELECT raise(ABORT, 'key-encryption keys are never deleted: retire them'); END;
CREATE TRIGGER "{key_encryption_keys}_are_not_replaced" BEFORE INSERT ON "{key_encryption_keys}"
WHEN EXISTS (SELECT 1 FROM "{key_encryption_keys}" WHERE kek_id = new.kek_id)
BEGIN SELECT raise(ABORT, 'key-encryption keys are never replaced: rotate them'); END;
