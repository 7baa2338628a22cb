"""Running the pipeline on one machine, and looking at what it did."""
