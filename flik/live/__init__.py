"""Redis, the fast and forgettable part. The only home of redis; losing it loses no task."""
