-- A sync that everybody in the tenant may start without describing it. It goes to a workroom, because memories are a person's own.

ALTER TABLE sync_sources ADD COLUMN is_tenant_default boolean NOT NULL DEFAULT false;
ALTER TABLE sync_sources ADD CONSTRAINT sync_sources_tenant_default_target
    CHECK (NOT is_tenant_default OR workroom_id IS NOT NULL) NOT VALID;
ALTER TABLE sync_sources VALIDATE CONSTRAINT sync_sources_tenant_default_target;
