-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_memories_user_created ON memories (user_id, created_at DESC, id DESC);
