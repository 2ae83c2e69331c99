"""The meters behind one small interface."""
