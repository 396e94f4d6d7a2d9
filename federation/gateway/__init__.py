"""The road of every other path: what a request asks for, and the one form it is sent on in."""
