"""The slower tests: real processes, real clients, real CI runners."""
