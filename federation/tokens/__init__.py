"""The broker's own tokens: the keys that sign them, minting, and taking them back."""
