"""What is measured of Flik, one row a module: `measure(region, plan) -> Outcome`."""
