"""fuzz injures the metadata of small real images and reads them: map, stream and cat of every file, check.

``python -m tests.fuzz`` builds the core with AddressSanitizer and UBSan beside the project and reads until told to
stop; what it finds becomes a file in ``found/``, which every run of the tests reads again.
"""
