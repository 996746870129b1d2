"""The lines that physics and the machine draw, measured in the same run: `measure(plan, data_home) -> Outcome`."""
