"""Verify subject tokens: fetch the public keys of issuers and check what they signed."""
