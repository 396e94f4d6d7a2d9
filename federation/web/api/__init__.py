"""
The API for people and programs with an access token: who am I, what may I do, and why.

The dashboard shows what this API answers, so anybody with a good token can ask for the same.
"""
