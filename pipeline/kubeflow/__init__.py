"""Kubeflow Pipelines: the pipeline compiled for a cluster, rehearsed, submitted, scheduled."""

# A parameter of a spec cannot be null; where a setting may be, this number says so.
NULL_NUMBER = -1.0
