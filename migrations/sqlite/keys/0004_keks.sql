-- A key-encryption key goes but one way: active, decrypt_only, retired. What was retired may be known to somebody, and must
-- not wrap new keys. And it stays in its partition, which no wrapped key is bound to.
CREATE TRIGGER "{key_encryption_keys}_go_one_way" BEFORE UPDATE ON "{key_encryption_keys}"
WHEN instr('active decrypt_only retired', new.state) < instr('active decrypt_only retired', old.state)
BEGIN SELECT raise(ABORT, 'a key-encryption key never comes back into use: rotate to a new one'); END;
CREATE TRIGGER "{key_encryption_keys}_stay_themselves" BEFORE UPDATE ON "{key_encryption_keys}"
WHEN old.kek_id <> new.kek_id OR old."partition" <> new."partition"
BEGIN SELECT raise(ABORT, 'a key-encryption key never changes its id or its partition'); END;
