"""The simulated provider: text by grammar, pictures and films by numpy, all from prompt and seed."""

from flik.providers.simulated.provider import SimulatedProvider

__all__ = ["SimulatedProvider"]
