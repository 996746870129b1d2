"""STOMP 1.0, 1.1 and 1.2, the server's side, without I/O: `session.py` is the way in."""
