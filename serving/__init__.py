"""Serves a generator over TensorFlow Serving's REST and gRPC APIs."""

import os

# gRPC's core, which reads this when it is imported, writes each error to stderr without any bound,
# beside the one that is raised.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
