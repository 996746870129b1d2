"""The way of a task, in the order in which it happens, with no Ray, HTTP or SQL in it.

`submit`    stores it, together with whatever else is being submitted, and announces it
`schedule`  the queue: orders what waits, grants it to workers, settles what they report
`work`      a worker: leases tasks, runs them with a provider, reports the outcomes

The classes here are plain: they get a store, a clock and the other side as constructor
arguments. `flik.actors` and `flik.deployments` wrap them for Ray.
"""
