"""The shared log of a channel of words, and the reflexes that send words by themselves."""
