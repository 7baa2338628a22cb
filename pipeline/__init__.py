"""The pipeline: settings, where its data comes from, and the graph of its components."""
