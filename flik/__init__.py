"""Flik: a durable, fair front door for generative models, on Ray Serve."""

__version__ = "0.1.0"
