"""A run's programs compiled before there is a machine, read, and held against its speeds."""
