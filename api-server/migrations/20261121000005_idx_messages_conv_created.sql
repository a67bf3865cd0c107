-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_messages_conv_created ON messages (conversation_id, created_at DESC, id DESC);
