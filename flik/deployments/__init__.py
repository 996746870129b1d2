"""Thin Ray Serve shells: the gateway, and one application a model version."""
