"""Reports: one page of HTML about a run, and the short views of notebooks."""
