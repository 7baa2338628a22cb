"""Networks, their training and their measures; no TFX here but the thin `run_fn`s."""
