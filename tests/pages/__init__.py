"""The checks of database pages: kept pages, and whole data directories of real servers."""
