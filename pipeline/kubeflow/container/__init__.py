"""What runs in a node's container on Kubeflow."""
