-- When the key that wraps a key now wrapped it; NULL: when it was made.
ALTER TABLE {data_keys} ADD COLUMN wrapped_at TIMESTAMPTZ;
ALTER TABLE {key_encryption_keys} ADD COLUMN wrapped_at TIMESTAMPTZ;

-- Rewrapping goes through the keys of a key-encryption key in the order of their ids.
DROP INDEX {located:data_keys_by_kek};
CREATE INDEX {index:data_keys_by_kek} ON {data_keys} (kek_id, key_id) WHERE state = 'live';

CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON {key_encryption_keys}
    FOR EACH STATEMENT EXECUTE FUNCTION {keys_refuse}('key-encryption keys are never deleted: retire them');
