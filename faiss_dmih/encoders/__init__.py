"""Deep hashing: encoders from images or feature vectors to binary codes. Needs torch."""
