"""The core of the driver compatibility matrix: see tests/compat/README.md."""
