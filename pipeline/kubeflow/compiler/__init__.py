"""From the pipeline to the spec that Kubeflow Pipelines runs."""
