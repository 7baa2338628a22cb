"""The report: an HTML page with the metrics of a generator and the reasons of the decision."""
