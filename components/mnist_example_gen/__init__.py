"""Ingestion: MNIST's IDX files of a span become `tf.Example` records."""
