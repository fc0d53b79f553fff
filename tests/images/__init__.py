"""images makes file systems of every kind that mkfs and the kernel can produce here. It reads none raw.

``table`` says which there are, ``fillers`` what is put into them, ``build`` makes one and asks the kernel of it.
Every run of the tests makes a few; with SPLITREEL_EVERY_IMAGE=1, all of them.
"""
