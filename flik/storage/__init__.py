"""PostgreSQL, the truth. The only home of psycopg; SQL lives in `sql/`, named."""
