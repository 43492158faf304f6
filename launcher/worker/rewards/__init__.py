"""What judges completions: functions of the user's, a small library, and trained reward models."""
