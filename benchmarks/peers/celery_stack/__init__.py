"""FastAPI, Celery and Redis, as a team would put them together. Runs in an environment of its own, without Flik."""
