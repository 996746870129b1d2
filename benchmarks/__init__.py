"""How fast Flik is, beside what its peer and the machine itself can do in the same run.

    make bench                     everything, a few minutes
    python -m benchmarks --quick   a few seconds a row, without the peer

A figure on its own says more about the machine than about Flik, so each stands beside a
line measured minutes apart on the same machine with the same client. A slow machine never
fails a run; a task that was accepted and did not settle exactly once does.
"""
