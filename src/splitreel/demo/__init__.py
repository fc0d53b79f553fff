"""demo shows a whole session on one machine without hardware, and proves it on the restored database.

It sets a scene (embedded mirror, file system, database, writers) and calls the session; it holds no backup mechanism.
"""
