"""Coverage-guided fuzzing of everything that reads a file somebody else may have made: python -m fuzz.run."""
