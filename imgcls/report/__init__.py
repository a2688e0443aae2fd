"""The report of a run: ``report.html`` and its tables, from the files of the run folder; without torch."""
