"""The documents an operator writes: parsed, checked, and adopted as one immutable catalog."""
