"""What pictures are made of, one file a kind of thing. Each is drawn once and painted many times."""
