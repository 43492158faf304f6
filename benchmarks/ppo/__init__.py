"""The two sides of `benchmarks/ppo_vs_trl.py`, and the task that both play."""
