"""Rows of any table to blocks of numbers; nothing here knows what a descent is."""
