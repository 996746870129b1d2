"""Policies as plain functions and values: no I/O, no Ray; `now` and randomness are passed in."""
