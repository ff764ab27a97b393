"""The client library: find, balance and call services, and register instances.

Everything for users is exported by `adsum` itself; start at `adsum.Client` or `adsum.SyncClient`.
"""
