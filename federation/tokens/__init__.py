"""The broker's own tokens: signing keys, minting and verification."""
