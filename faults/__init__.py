"""
Fault injection: break real brokers, their issuers and their stores under load.

Each fault is one function. Its docstring says what breaks, and then what the broker promises.
"""
