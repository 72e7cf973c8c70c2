"""What a Notary (v1) says of a repository's tags, verified from its own signed metadata.

`verification.verify` reads and verifies one repository, `policy.compare` judges a tag by that reading. Only `verification` and
what it imports (`roots`, `keys`) load `cryptography`: who does not verify does not pay for it.

The format is older than TUF 1.0. Its reference is the source of Notary 0.7, https://github.com/theupdateframework/notary; the
docstrings name the files. Where this reader differs from that client it is stricter, and says so.
"""
