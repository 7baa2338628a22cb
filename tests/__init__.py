"""The tests. A package, since a dependency installs another one of this name."""
