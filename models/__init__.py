"""Networks, their training and their measures; no TFX here but the thin `run_fn`s."""

import os

# Keras reads these when it is imported. A user's own would change what is trained, or break it.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["KERAS_HOME"] = os.path.join(os.devnull, "no keras.json")
for _limit in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
    os.environ.pop(_limit, None)
