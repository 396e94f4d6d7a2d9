"""
`federation doctor`: what this process would find on this machine if it were the broker.

Each check uses the code that the broker uses, so that both come to the same result. All run at the
same time and each within a limit. Nothing is changed: no file is made, no event sent, no token
minted. What a check says holds no secret.
"""
