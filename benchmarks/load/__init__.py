"""The load client: a lean HTTP/1.1 client in a process of its own.

It shares the machine with the server it measures, so what it burns the server lacks: bytes
are built before the clock starts, answers are kept as bytes and read after it stops.
"""
