"""Chains of steps as pure decisions."""
