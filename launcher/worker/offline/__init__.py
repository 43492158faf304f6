"""What the launcher adds to TRL's trainers that learn from the rows of a data set."""
