"""What is served: versions of a model in a local folder or an object store.

A base is the path or URI of the folder that a server watches, `<model name>/`. It holds a folder
per version, which `layout.py` describes. `push.py` adds versions, `rollback.py` and `repair.py`
change which one is served, `records.py` and `history.py` read what was written down about them.
Nothing here imports TensorFlow for a local base. Each function raises OSError where a disk or a
store refuses or does not answer.
"""
