"""Everything that lies in a run folder: where it is, what it says, how it is written and read."""
