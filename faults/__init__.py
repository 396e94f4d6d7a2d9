"""
Faults injected into real brokers under load, and whether what is promised held.

One function a fault; its docstring is the promise.
"""
