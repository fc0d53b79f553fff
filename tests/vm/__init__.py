"""vm boots this machine's own root under another kernel, for tests that need device mapper, md or a tape driver."""
