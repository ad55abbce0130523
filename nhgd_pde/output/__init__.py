"""What a run leaves on disk and shows on the terminal: field files, the run folder, the progress table."""
