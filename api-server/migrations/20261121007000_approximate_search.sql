-- Search by meaning through an HNSW index, for people with very many vectors only: their rows are marked, and the indexes hold nothing but
-- marked rows. Nobody else's row is ever in one of them.
ALTER TABLE memory_embeddings ADD COLUMN approximate boolean NOT NULL DEFAULT false;

-- Whose vectors of which model are being marked, or are marked: `ready` says that all of them are. A worker tends one of them at a time;
-- `lease` names the claim, and whoever holds another one may change nothing any more.
CREATE TABLE approximate_people (
    user_id   uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    model     text NOT NULL CHECK (length(model) BETWEEN 1 AND 128),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    ready     boolean NOT NULL DEFAULT false,
    due_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease     uuid,
    PRIMARY KEY (user_id, model)
) WITH (fillfactor = 70);
ALTER TABLE approximate_people ENABLE ROW LEVEL SECURITY;
ALTER TABLE approximate_people FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON approximate_people USING (tenant_id = (SELECT NULLIF(current_setting('tanka.tenant_id', true), '')::uuid));
CREATE POLICY internal ON approximate_people TO CURRENT_USER USING ((SELECT session_user) <> (SELECT current_user));
-- Only approximate_notice knows how many somebody has.
REVOKE INSERT ON approximate_people FROM tanka_app;

-- As before, and rows of a person who is being marked come marked. The lock is taken before the statement that looks whether the person is
-- one, and shared; who declares somebody ready takes it alone. So no row is still under way that has not seen that the person is one.
CREATE OR REPLACE FUNCTION embedding_store(ids uuid[], of_model text, vectors text[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    stored bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1635021153, hashtext(p.user_id::text))
       FROM (SELECT DISTINCT m.user_id FROM public.memories m WHERE m.id = ANY (ids) ORDER BY m.user_id) p;
    INSERT INTO public.memory_embeddings (memory_id, tenant_id, user_id, model, embedding, approximate)
    SELECT m.id, m.tenant_id, m.user_id, of_model, v.vector::public.halfvec,
           EXISTS (SELECT FROM public.approximate_people a WHERE a.user_id = m.user_id AND a.model = of_model)
      FROM unnest(ids, vectors) AS v (id, vector) JOIN public.memories m ON m.id = v.id
        ON CONFLICT (memory_id) DO UPDATE
       SET model = EXCLUDED.model, embedding = EXCLUDED.embedding, approximate = EXCLUDED.approximate;
    GET DIAGNOSTICS stored = ROW_COUNT;
    DELETE FROM public.embedding_queue q WHERE q.memory_id = ANY (ids);
    RETURN stored;
END $$;

-- Notes the people of these memories who have more than so many vectors of a model, if they are not known. Counts no further than it must.
CREATE FUNCTION approximate_notice(ids uuid[], of_model text, above bigint)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    noticed bigint;
BEGIN
    WITH unknown AS MATERIALIZED (
        SELECT DISTINCT m.user_id, m.tenant_id FROM public.memories m
         WHERE m.id = ANY (ids)
           AND NOT EXISTS (SELECT FROM public.approximate_people a WHERE a.user_id = m.user_id AND a.model = of_model)
    )
    INSERT INTO public.approximate_people (user_id, model, tenant_id)
    SELECT u.user_id, of_model, u.tenant_id FROM unknown u
     WHERE above < (SELECT count(*) FROM (
               SELECT FROM public.memory_embeddings e
                WHERE e.user_id = u.user_id AND e.model = of_model LIMIT above + 1) counted)
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS noticed = ROW_COUNT;
    RETURN noticed;
END $$;

-- The worker serves all tenants: one person who is due, for a while.
CREATE FUNCTION approximate_claim(lasting interval)
RETURNS TABLE (tenant_id uuid, user_id uuid, model text, lease uuid)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    WITH due AS (
        SELECT d.user_id, d.model FROM public.approximate_people d WHERE d.due_at <= clock_timestamp()
         ORDER BY d.due_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE public.approximate_people a SET due_at = clock_timestamp() + lasting, lease = gen_random_uuid()
      FROM due WHERE a.user_id = due.user_id AND a.model = due.model
    RETURNING a.tenant_id, a.user_id, a.model, a.lease;
END $$;

REVOKE ALL ON FUNCTION approximate_notice(uuid[], text, bigint), approximate_claim(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION approximate_notice(uuid[], text, bigint), approximate_claim(interval) TO tanka_app;
