"""The command line: train, sweep, submit, evaluate, report, play, language, export, list."""
