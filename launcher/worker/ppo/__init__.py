"""Proximal policy optimisation (PPO) with a value model, which TRL 1.16 no longer ships."""
