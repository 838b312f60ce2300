"""What to run: recipes, their fields and the command lines."""
