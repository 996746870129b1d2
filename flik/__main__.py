"""Makes `python -m flik` the same as `flik`."""

from flik.cli import main

if __name__ == "__main__":
    main()
