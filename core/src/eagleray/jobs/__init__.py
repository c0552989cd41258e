"""Jobs: their description, their plan, their phases and their records."""
