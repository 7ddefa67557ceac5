"""Bundles: one file that holds a study's evidence, and what a reviewer does with it.

make_crate writes a bundle, verify checks it on five levels, why walks from a number to the answers
behind it, diff compares two runs, sign signs a bundle's manifest. Nothing inside a bundle is
trusted before it was checked, and no code of a bundle is run outside the sandbox.
"""
