"""Batch launcher for TRL on Slurm: recipe → plan → run → node → artifacts → report."""

__version__ = "0.1.0"
