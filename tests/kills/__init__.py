"""kills hits a session with signals at every point of its way, over real databases, and looks what becomes of it.

``python -m tests.kills`` runs the whole matrix and prints it; ``test_kills.py`` a few of its cases.
"""
