"""Running the pipeline on one machine, and looking at what it did."""

import os

# ml-metadata tells of each connection, and of each that fails, on the terminal; what goes wrong is
# raised, too, and our message says more. glog reads this once, when
# the library is loaded.
os.environ.setdefault("GLOG_minloglevel", "3")
# A process takes the GPU memory that it needs: others of the same run, and a server, want some.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
