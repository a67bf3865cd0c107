-- Memories: typed notes of one person. `search` holds their words, unstemmed, because notes are in whatever language.
-- There is no GIN index on it: below row-level security `@@` is not leakproof, so the planner may not use one before the tenant is
-- checked. A search reads the rows of its person by idx_memories_user_created, which is a bounded number.
CREATE TABLE memories (
    id          uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    memory_type text NOT NULL CHECK (length(memory_type) BETWEEN 1 AND 50),
    content     text NOT NULL CHECK (length(content) BETWEEN 1 AND 32768),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    search      tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('simple', content)) STORED
);
ALTER TABLE memories ENABLE ROW LEVEL SECURITY;
ALTER TABLE memories FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON memories USING (tenant_id = (SELECT NULLIF(current_setting('tanka.tenant_id', true), '')::uuid));
REVOKE UPDATE ON memories FROM tanka_app;
