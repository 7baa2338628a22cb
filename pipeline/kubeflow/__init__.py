"""Kubeflow Pipelines: the pipeline compiled for a cluster, rehearsed, submitted, scheduled."""
