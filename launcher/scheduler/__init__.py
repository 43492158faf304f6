"""The two engines that run a stage's job: Slurm through Submitit, and this machine."""
