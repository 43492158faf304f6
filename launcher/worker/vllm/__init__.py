"""A vLLM server of a stage's own: its program, its health, its end, and how trainers reach it."""
