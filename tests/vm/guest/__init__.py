"""guest holds the tests that run inside the virtual machine: ``python -m tests.vm tests/vm/guest/test_NAME.py``."""
