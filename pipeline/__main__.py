"""`python -m pipeline` runs the command line of `pipeline.cli`."""

from pipeline.cli import run_and_exit

run_and_exit()
