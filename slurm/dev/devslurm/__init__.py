"""A real Slurm on one machine, for tests and first steps. Standard library only; Linux, root."""
