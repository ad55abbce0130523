"""What is minimised, and what has to hold besides."""
