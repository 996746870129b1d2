"""Dags: tasks that run when others have completed."""
