-- When the receiver of a task's own webhook said that it wants nothing any more (410): nothing of the task goes there
-- after that. NULL: it did not, or one of its deliveries was sent again by hand.
ALTER TABLE task_webhooks ADD COLUMN gone_at timestamptz;
