"""Running the pipeline on one machine, and looking at what it did."""

import os

# ml-metadata's database clients tell of each connection on the terminal; glog reads this once, when
# the library is loaded.
os.environ.setdefault("GLOG_minloglevel", "2")
