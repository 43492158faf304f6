"""Evaluation of finished models on held-out prompts."""
