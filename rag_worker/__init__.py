"""Questions to answers: the index, the search and the language model's work."""

import os

# Read when OpenMP is loaded, by whatever library: its threads then sleep between two pieces of
# work. By default they spin, and where others need the processor too, as the model's server and
# the other services do, a search took twenty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
