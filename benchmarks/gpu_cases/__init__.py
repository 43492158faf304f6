"""Real trainings of random models, cut short, whose peaks are held against the estimate."""
