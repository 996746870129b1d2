"""Webhooks as pure decisions: what is sent, how it is signed, where it may go, what an answer means, when again."""
