"""
The dashboard: pages for people, as a process and an origin of its own.

It has no power of its own: it shows and does what the broker allows the person who signed in.
"""
