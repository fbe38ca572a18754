"""One number for each room's mathematics; part of every fingerprint that the room decides.

Raise a room's number when its outputs move beyond rounding; a test with golden values fails when
they do and the number does not. Numbers live apart from their rooms, so that a plan reads them
without importing torch.
"""

FEATURES = 1
SPLITS = 1
TARGETS = 1
HEADS = 2
MEASURES = 2
