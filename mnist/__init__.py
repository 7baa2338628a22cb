"""The data: IDX files, spans and windows of them, splits, features, records, and the download."""
