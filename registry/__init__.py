"""What is served: the folder of versions, and what lies in a version."""
