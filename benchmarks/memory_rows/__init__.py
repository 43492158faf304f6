"""Published measurements of GPU memory, read as stages that the launcher can estimate."""
