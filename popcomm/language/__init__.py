"""What emerged: metrics as pure functions on arrays, pictures, and the files in which conversations are kept."""
