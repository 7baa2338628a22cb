"""The DAG, its settings and presets, its command lines, and what runs it here and on Kubeflow."""
