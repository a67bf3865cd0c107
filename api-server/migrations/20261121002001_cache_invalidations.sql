-- What committed writes have replaced in caches: names of entities, no content, so there is no tenant to wall off. Written in the
-- transaction of the change; every process looks for rows that no message told it of. `tx` tells which rows an earlier look cannot have
-- seen: numbers of rows are given out before commits, in another order.
CREATE TABLE cache_invalidations (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tx         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    target     text NOT NULL CHECK (length(target) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE INDEX idx_cache_invalidations_tx ON cache_invalidations (tx, id);
CREATE INDEX idx_cache_invalidations_created ON cache_invalidations (created_at);
REVOKE UPDATE ON cache_invalidations FROM tanka_app;

-- What concerns all tenants: ids only. Inside these functions the policy `internal` of the tables applies.
CREATE FUNCTION cache_tenant_of(wanted uuid)
RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN (SELECT u.tenant_id FROM public.users u WHERE u.id = wanted);
END $$;

CREATE FUNCTION cache_recent_people(days integer, most integer)
RETURNS TABLE (tenant_id uuid, user_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    SELECT s.tenant_id, s.user_id FROM public.sessions s
     WHERE s.revoked_at IS NULL AND s.refresh_expires_at > clock_timestamp()
       AND s.refreshed_at > clock_timestamp() - make_interval(days => days)
     GROUP BY s.tenant_id, s.user_id ORDER BY max(s.refreshed_at) DESC LIMIT most;
END $$;

REVOKE ALL ON FUNCTION cache_tenant_of(uuid), cache_recent_people(integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION cache_tenant_of(uuid), cache_recent_people(integer, integer) TO tanka_app;
