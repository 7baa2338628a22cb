"""The data: IDX files, spans, windows, splits, features, records, and the download."""
