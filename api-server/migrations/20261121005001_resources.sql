-- Files of people, in chunks, so that neither side ever holds a whole one. A row that is still `uploading` is seen by nobody and is removed
-- after an hour.
CREATE TABLE resources (
    id           uuid PRIMARY KEY,
    tenant_id    uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id      uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    workroom_id  uuid REFERENCES workrooms (id) ON DELETE CASCADE,
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    content_type text NOT NULL CHECK (length(content_type) BETWEEN 3 AND 100),
    chunk_size   integer NOT NULL CHECK (chunk_size > 0),
    size         bigint,
    digest       bytea CHECK (length(digest) = 32),
    is_ready     boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT resources_are_whole CHECK (NOT is_ready OR (size IS NOT NULL AND digest IS NOT NULL))
);
-- The latest come first; a predicate with the current time would be wrong from the next day on.
CREATE INDEX idx_recent_resources ON resources (tenant_id, created_at DESC, id DESC) WHERE is_ready;
CREATE INDEX idx_resources_unfinished ON resources (created_at) WHERE NOT is_ready;

CREATE TABLE resource_chunks (
    resource_id uuid NOT NULL REFERENCES resources (id) ON DELETE CASCADE,
    place       integer NOT NULL CHECK (place >= 0),
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    data        bytea NOT NULL,
    PRIMARY KEY (resource_id, place)
);
-- Files are mostly compressed already, and ranges are read from the middle.
ALTER TABLE resource_chunks ALTER COLUMN data SET STORAGE EXTERNAL;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['resources', 'resource_chunks']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (tenant_id = (SELECT NULLIF(current_setting(''tanka.tenant_id'', true), '''')::uuid))',
            name);
    END LOOP;
END $$;
REVOKE UPDATE ON resource_chunks FROM tanka_app;
CREATE POLICY internal ON resources TO CURRENT_USER USING ((SELECT session_user) <> (SELECT current_user));

CREATE FUNCTION maintenance_sweep_resources(batch integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM public.resources WHERE id = ANY (ARRAY(
        SELECT r.id FROM public.resources r WHERE NOT r.is_ready AND r.created_at < clock_timestamp() - interval '1 hour' LIMIT batch));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
REVOKE ALL ON FUNCTION maintenance_sweep_resources(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION maintenance_sweep_resources(integer) TO tanka_app;
