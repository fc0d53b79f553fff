"""prove stamps files and rows on the user's own volume and shows what a session's tape holds of them.

It holds no backup mechanism: it calls the session and the restore as anybody does, and looks at what comes back.
"""
