"""What a run leaves behind: schemas, immutable parts, and the tables and matrices people read.

Nothing is imported here, so that a plan reads the manifest and the parts without pandas.
"""
