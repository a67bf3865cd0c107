-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_memory_embeddings_hnsw_1536 ON memory_embeddings
    USING hnsw ((embedding::halfvec(1536)) halfvec_cosine_ops) WITH (m = 16, ef_construction = 64)
    WHERE approximate AND vector_dims(embedding) = 1536;
