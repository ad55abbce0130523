"""The files that a run writes, and the table that it shows: fields, the run folder, the progress table."""
