"""Chains of tasks (dags) as pure decisions."""
