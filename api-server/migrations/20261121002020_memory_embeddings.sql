-- Vectors of memories, beside them: a list does not read them. Half precision, in the row itself (`PLAIN`), so that an exact search of
-- thousands of rows fetches nothing from elsewhere. A person's rows are searched exactly by idx_memory_embeddings_user.
CREATE TABLE memory_embeddings (
    memory_id uuid PRIMARY KEY REFERENCES memories (id) ON DELETE CASCADE,
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id   uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    model     text NOT NULL CHECK (length(model) BETWEEN 1 AND 128),
    embedding halfvec NOT NULL
);
ALTER TABLE memory_embeddings ALTER COLUMN embedding SET STORAGE PLAIN;
CREATE INDEX idx_memory_embeddings_user ON memory_embeddings (user_id, model);

-- Memories whose vector is still to be computed, written in the transaction that writes the memory. What failed for good stays, with
-- its error and without a time.
CREATE TABLE embedding_queue (
    memory_id  uuid PRIMARY KEY REFERENCES memories (id) ON DELETE CASCADE,
    tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    attempts   smallint NOT NULL DEFAULT 0,
    due_at     timestamptz DEFAULT now(),
    last_error text
) WITH (fillfactor = 70);
CREATE INDEX idx_embedding_queue_due ON embedding_queue (due_at) WHERE due_at IS NOT NULL;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['memory_embeddings', 'embedding_queue']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (tenant_id = (SELECT NULLIF(current_setting(''tanka.tenant_id'', true), '''')::uuid))',
            name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['memories', 'memory_embeddings', 'embedding_queue']
    LOOP
        EXECUTE format(
            'CREATE POLICY internal ON %I TO CURRENT_USER USING ((SELECT session_user) <> (SELECT current_user))', name);
    END LOOP;
END $$;

-- The worker serves all tenants. A claim lasts for a while; a worker that dies leaves it to the next one.
CREATE FUNCTION embedding_claim(most integer, lease interval)
RETURNS TABLE (memory_id uuid, content text, attempts smallint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    RETURN QUERY
    WITH due AS (
        SELECT q.memory_id FROM public.embedding_queue q WHERE q.due_at <= clock_timestamp()
         ORDER BY q.due_at LIMIT most FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE public.embedding_queue q SET due_at = clock_timestamp() + lease, attempts = q.attempts + 1
          FROM due WHERE q.memory_id = due.memory_id RETURNING q.memory_id, q.attempts
    )
    SELECT m.id, m.content, c.attempts FROM claimed c JOIN public.memories m ON m.id = c.memory_id;
END $$;

CREATE FUNCTION embedding_store(ids uuid[], of_model text, vectors text[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    stored bigint;
BEGIN
    INSERT INTO public.memory_embeddings (memory_id, tenant_id, user_id, model, embedding)
    SELECT m.id, m.tenant_id, m.user_id, of_model, v.vector::public.halfvec
      FROM unnest(ids, vectors) AS v (id, vector) JOIN public.memories m ON m.id = v.id
        ON CONFLICT (memory_id) DO UPDATE SET model = EXCLUDED.model, embedding = EXCLUDED.embedding;
    GET DIAGNOSTICS stored = ROW_COUNT;
    DELETE FROM public.embedding_queue q WHERE q.memory_id = ANY (ids);
    RETURN stored;
END $$;

-- Without a pause it failed for good.
CREATE FUNCTION embedding_fail(ids uuid[], pause interval, error text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
BEGIN
    UPDATE public.embedding_queue q SET due_at = clock_timestamp() + pause, last_error = left(error, 500)
     WHERE q.memory_id = ANY (ids);
END $$;

-- Queues memories without a vector of this model, a bounded number at a time, the oldest first. Answers where to go on.
CREATE FUNCTION embedding_backfill(of_model text, after uuid, most integer)
RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public
AS $$
DECLARE
    last uuid;
BEGIN
    WITH batch AS (
        SELECT m.id, m.tenant_id FROM public.memories m WHERE m.id > after ORDER BY m.id LIMIT most
    ), queued AS (
        INSERT INTO public.embedding_queue (memory_id, tenant_id)
        SELECT b.id, b.tenant_id FROM batch b
         WHERE NOT EXISTS (SELECT FROM public.memory_embeddings e WHERE e.memory_id = b.id AND e.model = of_model)
            ON CONFLICT DO NOTHING
    )
    SELECT b.id INTO last FROM batch b ORDER BY b.id DESC LIMIT 1;
    RETURN last;
END $$;

REVOKE ALL ON FUNCTION embedding_claim(integer, interval), embedding_store(uuid[], text, text[]),
    embedding_fail(uuid[], interval, text), embedding_backfill(text, uuid, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION embedding_claim(integer, interval), embedding_store(uuid[], text, text[]),
    embedding_fail(uuid[], interval, text), embedding_backfill(text, uuid, integer) TO tanka_app;
