"""The command line: train, report, play, list."""
