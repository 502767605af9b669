"""The stages of a run: each makes its values from those of earlier stages, once, and keeps them.

A stage is a function from values to a value. What it makes is published in the run folder, and
read back from there, so that a value found is the same as a value made.
"""
