"""The compiled core: one module for each ext/*.pyx; bodies stand there, interfaces (.pxd, .pyi) here."""
