"""Plan → Run: make the run's folder, submit, rejoin, resume, cancel, and tell how it stands."""
