"""Dags put together with Ray's DAG API (`ray.dag`): the only place that knows it.

    from flik.dags import InputNode, step

    describe, draw, film = step("TEXT", id="describe"), step("IMAGE", id="draw"), step("VIDEO", id="film")
    with InputNode() as inp:
        text = describe.bind(prompt=inp.prompt)
        picture = draw.bind(prompt=text, width=512)
        dag = film.bind(prompt=text, input=picture)

    await client.run_dag(dag, {"prompt": "a harbour in the morning fog"})  # a FlikClient

Building and reading a graph takes no Ray cluster. Flik runs it, not Ray: `DAGNode.execute()` keeps nothing on disk,
and Ray means to drop it.
"""

from ray.dag import InputNode, MultiOutputNode

from flik.dags.compile import graph_of, steps_of
from flik.dags.compose import output, step

__all__ = ["InputNode", "MultiOutputNode", "graph_of", "output", "step", "steps_of"]
