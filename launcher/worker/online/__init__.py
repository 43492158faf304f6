"""What the launcher adds to TRL's trainers that generate while they train."""
