"""The matrix of methods: real trainings of the tiny model on a real Slurm, cell by cell."""
