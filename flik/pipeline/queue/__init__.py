"""The parts of the queue: what it knows (`waiting`, `roster`), what it does (`grant`, `settle`, `reap`, `refill`).

`flik/pipeline/schedule.py` puts them together and is what everybody else talks to.
"""
