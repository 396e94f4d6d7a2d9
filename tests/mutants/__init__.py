"""
Mutation tests of the security core: does a fast test fail if a check is weakened?

`mutations` lists small changes of a module, `runner` runs the fast tests on each, `modules` says
which modules and which tests, and `judged.toml` lists the changes that make no difference.
"""
