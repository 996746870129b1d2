"""Thin Ray shells around plain classes. All calls to Flik's actors are made in here."""

NAMESPACE = "flik"
QUEUE = "queue"
LIMITER = "limiter"
