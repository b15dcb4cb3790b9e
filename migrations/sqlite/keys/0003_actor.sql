-- Who changed a scope, as far as it was said; NULL before this column was there. Older versions go on writing without it.
ALTER TABLE "{key_scope_changes}" ADD COLUMN actor TEXT;
