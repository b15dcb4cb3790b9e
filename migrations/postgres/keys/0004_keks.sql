-- A key-encryption key goes but one way: active, decrypt_only, retired. What was retired may be known to somebody, and must
-- not wrap new keys. And it stays in its partition, which no wrapped key is bound to.
CREATE TRIGGER goes_one_way BEFORE UPDATE ON {key_encryption_keys}
    FOR EACH ROW WHEN (array_position(ARRAY['active', 'decrypt_only', 'retired'], NEW.state)
        < array_position(ARRAY['active', 'decrypt_only', 'retired'], OLD.state))
    EXECUTE FUNCTION {keys_refuse}('a key-encryption key never comes back into use: rotate to a new one');
CREATE TRIGGER stays_itself BEFORE UPDATE ON {key_encryption_keys}
    FOR EACH ROW WHEN (OLD.kek_id <> NEW.kek_id OR OLD."partition" <> NEW."partition")
    EXECUTE FUNCTION {keys_refuse}('a key-encryption key never changes its id or its partition');
