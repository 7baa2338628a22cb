"""Serves a generator over TensorFlow Serving's REST and gRPC APIs."""
