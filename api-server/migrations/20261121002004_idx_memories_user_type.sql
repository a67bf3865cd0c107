-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_memories_user_type ON memories (user_id, memory_type, created_at DESC, id DESC);
