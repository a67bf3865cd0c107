-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_conv_active ON conversations (user_id, last_message_at DESC, id DESC) WHERE deleted_at IS NULL;
